"""What keys used, beside the figures of a real ``ollama``: both agree.

Needs ``ollama`` on the PATH and a model of its store: see ``test_real_ollama``.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.black_box import ProxyProcess, proxy_process, run_cli
from tests.test_real_ollama import MODEL, needs_model, real_environment

pytestmark = [pytest.mark.real_ollama, needs_model]

SIZE = 8
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
NATIVE = CHAT | {"options": {"num_predict": SIZE, "temperature": 0}}
GENERATE = {"model": MODEL, "prompt": "Say hello.", "options": {"num_predict": SIZE}}
OPENAI = CHAT | {"max_tokens": SIZE, "temperature": 0}
COMPLETION = {"model": MODEL, "prompt": "Say hello.", "max_tokens": SIZE}
RESPONSES = {"model": MODEL, "input": "Say hello.", "max_output_tokens": SIZE}
STREAM = {"stream": True}
WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}
LOGPROBS = {"stream": False, "logprobs": True, "top_logprobs": 5}

Figures = tuple[int, int]


def native(answer: bytes) -> Figures:
    last = json.loads(answer.splitlines()[-1])
    return last.get("prompt_eval_count", 0), last.get("eval_count", 0)


def openai(answer: bytes) -> Figures:
    usage = _last(answer)["usage"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)


def anthropic(answer: bytes) -> Figures:
    told = _last(answer)
    usage = told.get("response", told)["usage"]
    return usage["input_tokens"], usage["output_tokens"]


def _last(answer: bytes) -> dict[str, Any]:
    """Return the only object of an answer, or the last event with usage."""
    lines = [line.removeprefix(b"data: ") for line in answer.splitlines()]
    (*_, last) = (line for line in lines if b'"usage"' in line)
    told: dict[str, Any] = json.loads(last)
    return told


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    state = tmp_path_factory.mktemp("usage") / "s"
    with proxy_process(state, **real_environment()) as proxy:
        proxy.post("/-/wake", {})
        proxy.until(
            lambda: proxy.get("/status")["provisioning_status"] == "ready", 60.0
        )
        yield proxy


def make_key(proxy: ProxyProcess, name: str) -> dict[str, str]:
    state = str(proxy.state)
    made = run_cli("key", "add", name, "--yes", OLLAMA_PROXY_STATE_DIR=state)
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def used_by(proxy: ProxyProcess, name: str) -> dict[str, Any]:
    """Return the only row of a key, once its request has ended."""
    path = f"/-/usage?key={name}&by=key,model"
    proxy.until(lambda: bool(proxy.get(path)["usage"]))
    (row,) = proxy.get(path)["usage"]
    assert row["model"].startswith(MODEL.partition(":")[0])
    return dict(row)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/api/chat", NATIVE, native),
        ("/api/chat", NATIVE | {"stream": False}, native),
        ("/api/generate", GENERATE, native),
        ("/api/generate", GENERATE | LOGPROBS, native),
        ("/api/generate", {"model": MODEL}, native),
        ("/v1/chat/completions", OPENAI, openai),
        ("/v1/chat/completions", OPENAI | WITH_USAGE, openai),
        ("/v1/completions", COMPLETION, openai),
        ("/v1/completions", COMPLETION | WITH_USAGE, openai),
        ("/v1/responses", RESPONSES, anthropic),
        ("/v1/responses", RESPONSES | STREAM, anthropic),
        ("/v1/messages", OPENAI, anthropic),
        ("/v1/messages", OPENAI | STREAM, anthropic),
    ],
)
def test_usage_is_what_the_answer_itself_says(
    proxy: ProxyProcess,
    path: str,
    body: dict[str, Any],
    told: Callable[[bytes], Figures],
    request: pytest.FixtureRequest,
) -> None:
    name = f"k{request.node.callspec.id}".translate(str.maketrans("/_", "--"))[:40]
    status, answer = proxy.post(path, body, **make_key(proxy, name))
    assert status == 200, answer
    row = used_by(proxy, name)

    assert (row["prompt_tokens"], row["output_tokens"]) == told(answer)
    assert row["estimated"] == 0
    assert row["seconds"] > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", OPENAI), ("/v1/completions", COMPLETION)],
)
def test_an_openai_stream_without_figures_is_estimated_by_its_chunks(
    proxy: ProxyProcess, path: str, body: dict[str, Any]
) -> None:
    name = f"estimated{path.count('/')}"
    status, answer = proxy.post(path, body | STREAM, **make_key(proxy, name))
    assert status == 200
    assert b"usage" not in answer
    row = used_by(proxy, name)

    events = [line for line in answer.splitlines() if line.startswith(b"data: {")]
    content = [event for event in events if b'"finish_reason":"' not in event]
    assert row["output_tokens"] == len(content) > 0
    assert row["estimated"] == row["prompt_tokens"] + row["output_tokens"]
