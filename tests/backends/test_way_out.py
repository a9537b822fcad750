"""Clouds are reached through a company's proxy; what is here or ours is not."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ollama_proxy.backends.base.image_registry import look_at
from ollama_proxy.backends.base.json_client import RestClient
from ollama_proxy.backends.exoscale.api import ENDPOINT, ExoscaleApi
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.backends.way_out import authorities, is_here, web_proxy
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import BackendError, SpecError, TransientError
from tests.black_box import proxy_process, run_cli
from tests.fakes.web_proxy import WebProxy, web_proxy_running
from tests.ports import address_of_nobody, held_port

NAMES = ("api.machines.dev", "api-at-vie-2.exoscale.com", "registry.example")
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
TRUSTED = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *TRUSTED):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WebProxy]:
    """Be in a network with a proxy and an authority of its own."""
    async with web_proxy_running(tmp_path, *NAMES) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.authority))
        yield proxy


async def ask_rest(url: str = "https://api.machines.dev") -> object:
    client = RestClient(f"{url}/v1", "secret-token")
    try:
        return await client.call("POST", "/apps", _never)
    finally:
        await client.aclose()


def _never(status: int, said: str, _body: object) -> BackendError:
    raise AssertionError(status, said)


async def ask_exoscale(url: str = ENDPOINT) -> object:
    api = ExoscaleApi(
        "at-vie-2",
        endpoint=url,
        key="EXOkey",
        secret="secret-token",
        clock=SystemClock(),
    )
    try:
        return await api.call("create_instance", name="x", disk_size=50)
    finally:
        api.close()


async def ask_registry(url: str = "https://registry.example") -> object:
    return await look_at(f"{url.partition('//')[2]}/team/ollama:1")


CLOUDS = [(ask_rest, NAMES[0]), (ask_exoscale, NAMES[1])]
EVERY = [*CLOUDS, (ask_registry, NAMES[2])]
Ask = Callable[..., Awaitable[object]]


@pytest.mark.parametrize(("ask", "name"), CLOUDS)
async def test_a_cloud_is_asked_through_the_proxy(
    company: WebProxy, ask: Ask, name: str
) -> None:
    assert await ask() == {}
    assert company.tunnels == [f"{name}:443"]
    assert len(company.asked) == 1


async def test_a_registry_is_asked_through_the_proxy(company: WebProxy) -> None:
    company.status = 404
    with pytest.raises(SpecError, match="there is no image"):
        await ask_registry()

    assert company.tunnels[0] == "registry.example:443"
    assert "/v2/team/ollama/manifests/1" in company.asked[0]


@pytest.mark.parametrize(("ask", "name"), CLOUDS)
async def test_a_proxy_that_wants_a_password_gets_it(
    company: WebProxy, monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
) -> None:
    company.password = "p%40ss"
    monkeypatch.setenv("HTTPS_PROXY", company.url)
    company.password = "p@ss"

    assert await ask() == {}


@pytest.mark.parametrize(("ask", "name"), EVERY)
async def test_a_proxy_that_lets_nobody_pass_is_named_as_the_cause(
    company: WebProxy, monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
) -> None:
    """Nothing was sent, so the call may be repeated: no outcome is unknown."""
    company.password = "other"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden@127.0.0.1:{company.port}")
    with pytest.raises(TransientError) as caught:
        await ask()

    assert "407 Proxy Authentication Required" in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(("ask", "name"), EVERY)
async def test_a_proxy_that_is_not_there_is_named_as_the_cause(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden@127.0.0.1:{held_port()}")
    with pytest.raises(TransientError) as caught:
        await ask()

    assert "HTTPS_PROXY" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("ask", "name"), EVERY)
async def test_an_authority_that_is_unknown_is_named_as_the_cause(
    company: WebProxy, monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransientError, match="set SSL_CERT_FILE"):
        await ask()

    assert company.asked == []


@pytest.mark.parametrize("variable", TRUSTED[1:3])
@pytest.mark.parametrize(("ask", "name"), CLOUDS)
async def test_the_authority_may_be_named_as_other_programs_have_it(
    company: WebProxy,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    ask: Ask,
    name: str,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(variable, str(company.authority))

    assert await ask() == {}


@pytest.mark.parametrize("text", [None, "no certificate"])
@pytest.mark.parametrize(("ask", "name"), EVERY)
async def test_an_authority_that_can_not_be_read_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    ask: Ask,
    name: str,
) -> None:
    path = tmp_path / "x.pem"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(SpecError, match=r"SSL_CERT_FILE: .* can't be read as certif"):
        await ask()


@pytest.mark.parametrize("excepted", ["*", ".machines.dev", "api.machines.dev:443"])
def test_names_that_are_excepted_are_asked_directly(
    monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert web_proxy("https://api.machines.dev:443/v1") == "http://proxy:3128"
    monkeypatch.setenv("NO_PROXY", f"x.example,{excepted}")

    assert web_proxy("https://api.machines.dev:443/v1") is None


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HTTPS_PROXY", "proxy:3128", "http://proxy:3128"),
        ("https_proxy", "http://proxy:3128/", "http://proxy:3128/"),
        ("all_proxy", "http://proxy:3128", "http://proxy:3128"),
        ("HTTP_PROXY", "http://proxy:3128", None),
        ("HTTPS_PROXY", "", None),
    ],
)
def test_the_variables_are_read_as_other_programs_read_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str | None
) -> None:
    monkeypatch.setenv(variable, value)

    assert web_proxy("https://api.example/v1") == expected


@pytest.mark.parametrize("value", ["socks5://proxy:1080", "https://proxy:443", "://x"])
def test_a_proxy_that_can_not_be_spoken_to_is_told(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)

    with pytest.raises(SpecError, match=r"HTTPS_PROXY: .* write http://host:port"):
        web_proxy("https://api.example/v1")


@pytest.mark.parametrize("host", ["127.0.0.1:8", "127.9.9.9", "localhost", "[::1]:8"])
def test_what_is_on_this_machine_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")

    assert is_here(f"http://{host}/v1")
    assert web_proxy(f"http://{host}/v1") is None
    assert web_proxy("http://10.0.0.1/v1") == "http://proxy:3128"


@pytest.mark.parametrize(("ask", "name"), EVERY)
async def test_an_api_on_this_machine_is_not_asked_through_the_proxy(
    company: WebProxy, monkeypatch: pytest.MonkeyPatch, ask: Ask, name: str
) -> None:
    for variable in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, company.url)
    with pytest.raises(TransientError):
        await ask(f"http://{address_of_nobody()}")

    assert (company.tunnels, company.asked) == ([], [])


def test_without_a_word_the_systems_own_authorities_are_trusted() -> None:
    assert authorities() is None


async def test_the_command_of_ovh_knows_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x", "SSL_CERT_FILE": "/ca.pem"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    program = tmp_path / "ovhai"
    program.write_text(
        f"#!{sys.executable}\nimport json, os\nprint(json.dumps([dict(os.environ)]))\n"
    )
    program.chmod(0o755)
    driver = CliDriver(
        "GRA",
        program=str(program),
        home=tmp_path,
        template=None,
        environment=os.environ,
    )
    answer = await driver._read("app", "list")
    await driver.aclose()

    assert isinstance(answer, list)
    assert told.items() <= answer[0].items()


async def test_nothing_but_clouds_is_asked_through_it(
    company: WebProxy, tmp_path: Path
) -> None:
    """Neither an instance, nor the server of `static`, nor ourselves."""
    names = dict.fromkeys((*VARIABLES[:3], "http_proxy", "all_proxy"), company.url)

    def use() -> list[int]:
        with proxy_process(tmp_path / "a", pipe=False, **names) as ours:
            upstream = {"OLLAMA_PROXY_UPSTREAM_URL": ours.url}
            with proxy_process(tmp_path / "b", pipe=False, **names, **upstream) as one:
                body = {"model": "llama3.2", "prompt": "hi"}
                told = one.post("/api/generate", body, Prefer="wait=30")[0]
                done = [
                    run_cli(word, OLLAMA_HOST=one.url, **names).returncode
                    for word in ("status", "healthcheck")
                ]
                return [told, *done]

    assert await asyncio.to_thread(use) == [200, 0, 0]
    assert (company.tunnels, company.asked) == ([], [])
    assert os.environ["HTTPS_PROXY"] == company.url
