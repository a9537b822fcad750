"""What a job asks for, in its former form and in ours, and which bodies are none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.nodes.job import Job, JobError, parse_job

FORMER = {
    "model": "llama3",
    "prompt": "hi",
    "options": {"temperature": 0.5, "num_predict": 10},
}


def parsed(fields: Any) -> Job:
    return parse_job(json.dumps(fields).encode())


def body_of(fields: Any) -> Any:
    return json.loads(parsed(fields).body)


def test_a_former_job_is_a_generation_that_streams() -> None:
    job = parsed(FORMER)

    assert json.loads(job.body) == {**FORMER, "stream": True}
    assert (job.model, job.route.name, job.streams) == ("llama3", "/api/generate", True)


def test_a_job_may_ask_for_one_answer_in_one_piece() -> None:
    job = parsed({**FORMER, "stream": False})

    assert not job.streams
    assert json.loads(job.body)["stream"] is False


@pytest.mark.parametrize(
    "added",
    [
        {"format": "json"},
        {"format": {"type": "object"}},
        {"system": "s"},
        {"images": ["aGk="]},
        {"keep_alive": "5m"},
        {"think": True},
    ],
)
def test_a_job_may_have_what_ollama_takes(added: dict[str, Any]) -> None:
    job = parsed({**FORMER, **added})

    assert json.loads(job.body) == {**FORMER, **added, "stream": True}


@pytest.mark.parametrize(
    "added", [{"client": "x"}, {"MODEL": "other"}, {"stream": None}, {"system": None}]
)
def test_keys_that_say_nothing_are_left_out(added: dict[str, Any]) -> None:
    job = parsed({**FORMER, **added})

    assert json.loads(job.body) == {**FORMER, "stream": True}


def test_messages_make_a_job_a_chat() -> None:
    messages = [{"role": "user", "content": "hi"}]

    job = parsed({"model": "m", "messages": messages, "tools": []})

    assert job.route.name == "/api/chat"
    assert json.loads(job.body)["messages"] == messages
    assert json.loads(job.body)["tools"] == []


def test_system_text_and_pictures_of_a_chat_go_into_its_messages() -> None:
    said = {"role": "user", "content": "what is this?"}

    body = body_of(
        {"model": "m", "messages": [said], "system": "be brief", "images": ["aGk="]}
    )

    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {**said, "images": ["aGk="]},
    ]
    assert body.keys() == {"model", "messages", "stream"}


def test_values_pass_byte_for_byte() -> None:
    text = b'{"model":"m","prompt":"\\u00e9","options":{"seed":1e2,"top_p":0.10}}'

    assert b'"prompt":"\\u00e9","options":{"seed":1e2,"top_p":0.10}' in (
        parse_job(text).body
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "no object"),
        (b'"model"', "no object"),
        (b"{}", "'model' is missing"),
        (b'{"model":"","prompt":"x"}', "'model' is missing"),
        (b'{"model":null,"prompt":"x"}', "'model' is missing"),
        (b'{"model":1,"prompt":"x"}', "'model' is not a text"),
        (b'{"model":"m"}', "'prompt' or 'messages'"),
        (b'{"model":"m","prompt":"x","messages":[]}', "not both"),
        (b'{"model":"m","prompt":["x"]}', "'prompt' is not a text"),
        (b'{"model":"m","prompt":"x","options":[]}', "'options' is not an object"),
        (b'{"model":"m","prompt":"x","stream":"no"}', "'stream' is not true or false"),
        (b'{"model":"m","prompt":"x","stream":0}', "'stream' is not true or false"),
        (b'{"model":"m","prompt":"x","format":1}', "'format' is not a text or an"),
        (b'{"model":"m","messages":{}}', "'messages' is not a list"),
        (b'{"model":"m","messages":[1],"system":"s"}', "a message is no object"),
        (b'{"model":"m","messages":[],"images":["x"]}', "'images' go to the last"),
        (b'{"model":"m","prompt":' + b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(body: bytes, words: str) -> None:
    with pytest.raises(JobError, match=words):
        parse_job(body)


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_read_or_refused(body: bytes) -> None:
    try:
        job = parse_job(body)
    except JobError:
        return
    assert job.model


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "prompt", "messages", "stream", "system", "images"]),
        JSON,
    )
)
def test_a_job_that_is_read_is_one_for_ollama(fields: dict[str, Any]) -> None:
    try:
        job = parsed(fields)
    except JobError:
        return
    body = json.loads(job.body)
    assert body["model"] == fields["model"]
    assert body["stream"] is job.streams
    assert ("messages" in body) is (job.route.name == "/api/chat")
