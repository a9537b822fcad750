"""The proxy's own words: one line, the caller's shape, safe with every client."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.error_bodies import (
    ProvisioningStatus,
    empty_answer,
    error_body,
    heartbeat,
    in_band_error,
    provisioning_body,
    retry_after_s,
)
from ollama_proxy.core.ollama.routes import Family

WAITING = ProvisioningStatus(
    "provisioning", "is starting", "pulling", 0.5, 3.0, None, 20
)


@given(st.text())
def test_every_error_is_one_line_of_json(message: str) -> None:
    for family in Family:
        body = error_body(family, 503, message)

        assert b"\n" not in body
        said = json.loads(body)["error"]
        assert (said if family is Family.NATIVE else said["message"]) == message


def test_a_native_error_is_a_string() -> None:
    assert json.loads(error_body(Family.NATIVE, 404, "gone")) == {"error": "gone"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (503, "api_error")],
)
def test_an_openai_error_has_its_type(status: int, kind: str) -> None:
    said = json.loads(error_body(Family.OPENAI, status, "m"))["error"]

    assert said == {"message": "m", "type": kind, "param": None, "code": None}


def test_an_anthropic_error_has_type_and_request_id() -> None:
    said = json.loads(error_body(Family.ANTHROPIC, 503, "m", request_id="req_1"))

    assert said == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "m"},
        "request_id": "req_1",
    }


def test_the_native_wait_has_flat_keys_and_a_string_status() -> None:
    said = json.loads(provisioning_body(Family.NATIVE, WAITING))

    assert said["status"] == "provisioning"
    assert said["provisioning"] is True
    assert not [value for value in said.values() if isinstance(value, dict | list)]


def test_the_other_waits_carry_a_code_or_a_type() -> None:
    openai = json.loads(provisioning_body(Family.OPENAI, WAITING))
    anthropic = json.loads(provisioning_body(Family.ANTHROPIC, WAITING))

    assert openai["error"]["code"] == "provisioning"
    assert anthropic["error"]["type"] == "overloaded_error"


def test_in_band_errors_are_framed_as_their_stream() -> None:
    assert in_band_error(Family.NATIVE, "m") == b'{"error":"m"}\n'
    assert in_band_error(Family.OPENAI, "m").startswith(b'data: {"error":{')
    assert in_band_error(Family.ANTHROPIC, "m").startswith(b"event: error\ndata: {")


def test_no_native_heartbeat_ends_a_line() -> None:
    assert b"\n" not in heartbeat(Family.NATIVE)


@pytest.mark.parametrize("position", [None, 1, 2, 1000])
def test_a_heartbeat_tells_the_place_in_the_queue_where_parsers_skip_it(
    position: int | None,
) -> None:
    beat = heartbeat(Family.OPENAI, position)

    assert beat.startswith(b": ")
    assert beat.endswith(b"\n\n")
    assert (b"position %d" % (position or 0) in beat) == (position in {2, 1000})
    assert heartbeat(Family.NATIVE, position) == b" "


@given(st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_retry_after_is_between_one_and_sixty(eta_s: float | None, f: float) -> None:
    assert 1 <= retry_after_s(eta_s, f) <= 60


def test_retry_after_spreads_the_clients() -> None:
    assert retry_after_s(40.0, 0.0) == 40
    assert retry_after_s(40.0, 1.0) == 50


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_an_empty_request_is_answered_as_ollama_does(reason: str) -> None:
    moment = "2026-11-21T00:00:00Z"
    generate = json.loads(empty_answer("/api/generate", "m", moment, reason))
    chat = json.loads(empty_answer("/api/chat", "m", moment, reason))

    assert generate["response"] == ""
    assert chat["message"] == {"role": "assistant", "content": ""}
    assert generate["done_reason"] == chat["done_reason"] == reason
