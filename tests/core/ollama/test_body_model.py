"""The model of a request, from the beginning of its body."""

import json
import time

import pytest

from ollama_proxy.core.ollama.body_model import (
    MOST_STEPS,
    model_in_form,
    model_in_json,
)

IMAGE = "A" * 200_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a:b","prompt":"hi"}',
        b'\r\n {"prompt":"hi" , "model" : "a:b"',
        b'{"Model":"a:b","messages":[',
        b'{"MODEL":"a:b"}',
        b'{"mod\\u0065l":"a\\u003ab"}',
        b'{"messages":[{"model":"no","content":"a \\"model\\": }"}],"model":"a:b",',
        b'{"n":-1.5e3,"t":true,"x":null,"l":[],"o":{},"model":"a:b"',
        b'{"format":{"a":[{"b":["]}"]}]},"model":"a:b"',
        json.dumps({"images": [IMAGE], "model": "a:b"}).encode(),
        b'{"model":"a:b","model":"last"',
    ],
)
def test_a_model_is_seen_where_it_stands(body: bytes) -> None:
    assert model_in_json(body) == "a:b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model',
        b'{"model":"a:b',
        b'{"model":5}',
        b'{"model":null}',
        b'{"messages":[{"model":"a:b"}]',
        b'{"messages":{"model":"a:b"}}',
        b'{"prompt":"\\"model\\":\\"a:b\\""}',
        b'{"prompt":"' + IMAGE.encode(),
        b'{"n":12',
        b'{"model" "a:b"}',
        b"\x1f\x8b\x08\x00",
        b'{"a":[[[[[',
        b'"model":"a:b"',
    ],
)
def test_a_model_that_is_not_there_yet_is_not_made_up(body: bytes) -> None:
    assert model_in_json(body) is None


def test_every_beginning_of_a_body_says_the_model_or_nothing() -> None:
    body = json.dumps(
        {"n": 1.5, "m": [{"a": '"}]'}, None], "model": "a:b", "after": {}}
    ).encode()

    seen = {model_in_json(body[:size]) for size in range(len(body) + 1)}

    assert seen == {None, "a:b"}


@pytest.mark.parametrize(
    "filler", [b"[" * 20_000_000, b'""' * 10_000_000, b"{}" * 10_000_000]
)
def test_no_body_takes_long(filler: bytes) -> None:
    begun = time.process_time()

    assert model_in_json(b'{"x":[' + filler + b'],"model":"a:b"}') is None

    assert time.process_time() - begun < 2.0


def test_a_long_text_before_the_model_is_one_step() -> None:
    body = b'{"x":"' + b"a" * 8_000_000 + b'","model":"a:b"'

    assert model_in_json(body) == "a:b"
    assert model_in_json(b'{"x":[' + b"1," * MOST_STEPS + b'1],"model":"a:b"') == "a:b"


def form(*parts: tuple[str, bytes], boundary: str = "xYz") -> bytes:
    """Return a multipart body of parts: what they are, and what they say."""
    lines = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n"
        % (boundary.encode(), what.encode(), value)
        for what, value in parts
    ]
    return b"".join(lines) + b"--" + boundary.encode() + b"--\r\n"


AUDIO = ('name="file"; filename="model"', b"RIFF\r\n\r\n--xY\r\nname=model")
MODEL = ('name="model"', b"a:b")


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL, AUDIO),
        form(AUDIO, MODEL),
        form(AUDIO, ("NAME=model", b"a:b")),
        form(('name="model"; filename="x"', b"a:b"), AUDIO),
        form(("name=model", b"a:b"), boundary="-" * 70),
        form(AUDIO, MODEL)[:-4],
    ],
)
def test_a_form_says_its_model_whatever_the_order(body: bytes) -> None:
    assert model_in_form(body) == "a:b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--\r\n",
        b"no boundary\r\n",
        form(AUDIO),
        form(('name="models"', b"a:b")),
        form(('name="file"', b'name="model"')),
        form(AUDIO, MODEL)[:-14],
        b"--x" + b"y" * 100 + b"\r\n",
        b"--x\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_a_form_without_a_model_has_none(body: bytes) -> None:
    assert model_in_form(body) is None
