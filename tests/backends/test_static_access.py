"""An upstream gets its credentials, and no other place shows them."""

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.backends.static_access import (
    MOST_HEADERS,
    access_link,
    access_warnings,
    parse_headers,
    parse_token,
)
from ollama_proxy.backends.static_settings import StaticSettings
from ollama_proxy.base import log
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.composition import open_backend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import of_answer
from ollama_proxy.store.sqlite.store import SqliteStore
from ollama_proxy.upstream.endpoint import Link
from tests.black_box import PROGRAM, ROOT, clean_environment, proxy_process
from tests.fleet.test_connect_faults import HERE, certificate
from tests.proxy import RunningProxy, running_proxy

PASSWORD, TOKEN, KEY = "pa/ss-w0rd-1", "t0ken-t0ken-2", "k3y-k3y-k3y-3"
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
U, T, H = (f"OLLAMA_PROXY_UPSTREAM_{name}" for name in ("URL", "TOKEN", "HEADERS"))
CA, INSECURE = "OLLAMA_PROXY_UPSTREAM_CA", "OLLAMA_PROXY_UPSTREAM_INSECURE"


@dataclass(slots=True)
class Gateway:
    """Refuses requests without its header; records the headers of all."""

    name: str = "Authorization"
    value: str = ""
    url: str = ""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.title(): value for name, value in request.headers.items()}
        self.seen.append((request.path, headers))
        if self.value and request.headers.get(self.name) != self.value:
            told = f"no entry with {request.headers.get(self.name)}"
            return web.json_response({"error": told}, status=401)
        if request.path == "/api/version":
            return web.json_response({"version": "0.33.0"})
        if request.path == "/api/tags":
            return web.json_response({"models": []})
        return web.json_response({"model": "tiny", "embeddings": [[1.0]]})

    def of(self, path: str) -> list[dict[str, str]]:
        return [headers for one, headers in self.seen if one == path]


@contextlib.asynccontextmanager
async def gateway(
    name: str = "Authorization", value: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Gateway]:
    one = Gateway(name, value)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    scheme = "http" if tls is None else "https"
    one.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await runner.cleanup()


def configured(folder: Path, **env: str) -> Settings:
    return load_settings({"OLLAMA_PROXY_STATE_DIR": str(folder), **env})


def access(folder: Path, **env: str) -> StaticSettings:
    return configured(folder, **env).of(StaticSettings)


def opened(settings: Settings) -> StaticBackend:
    with contextlib.closing(SqliteStore(settings.state_dir / "other")) as store:
        backend = open_backend(settings, store, SystemClock())
    assert isinstance(backend, StaticBackend)
    return backend


@contextlib.asynccontextmanager
async def proxy_to(folder: Path, **env: Any) -> AsyncIterator[RunningProxy]:
    """Run a proxy with the backend that its settings make."""
    backend = opened(configured(folder, **env))
    async with running_proxy(folder, backend=backend, **env) as proxy:
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy


def with_login(url: str) -> str:
    return url.replace("://", "://me:pa%2Fss-w0rd-1@")


GATES = [
    pytest.param("Authorization", BASIC, {U: "login"}, id="login"),
    pytest.param("Authorization", f"Bearer {TOKEN}", {T: TOKEN}, id="token"),
    pytest.param("X-Api-Key", KEY, {H: f"X-Api-Key: {KEY}\nX-Other: 1"}, id="lines"),
    pytest.param("X-Api-Key", KEY, {H: json.dumps({"x-api-key": KEY})}, id="json"),
    pytest.param("Authorization", KEY, {H: f"Authorization: {KEY}"}, id="own"),
]


@pytest.mark.parametrize(("name", "value", "env"), GATES)
async def test_probes_and_requests_of_either_server_get_through(
    tmp_path: Path, name: str, value: str, env: dict[str, str]
) -> None:
    async with gateway(name, value) as there:
        url = with_login(there.url) if env.get(U) else there.url
        async with proxy_to(tmp_path, **{**env, U: url}) as proxy:
            client = {name: "the client's own", "Content-Type": "application/json"}
            for more in ({}, {"Prefer": "wait=1"}):  # the second is served behind
                async with proxy.session.post(
                    f"{proxy.url}/api/embed", data=b"{}", headers={**client, **more}
                ) as answer:
                    assert answer.status == 200
            assert proxy.behind
            status = await proxy.status()

    assert status["remote_url"] == there.url
    assert {headers[name] for _, headers in there.seen} == {value}
    assert len(there.of("/api/embed")) == 2
    assert there.of("/api/version")


async def test_the_clients_own_authorization_passes_unless_one_is_added(
    tmp_path: Path,
) -> None:
    async with gateway() as there:
        env = {U: there.url, H: f"X-Api-Key: {KEY}"}
        async with proxy_to(tmp_path, **env) as proxy:
            url, own = f"{proxy.url}/api/embed", {"Authorization": "Bearer the-client"}
            async with proxy.session.post(url, data=b"{}", headers=own) as answer:
                assert answer.status == 200

    (asked,) = there.of("/api/embed")
    assert asked["Authorization"] == "Bearer the-client"
    assert asked["X-Api-Key"] == KEY


@pytest.mark.parametrize("ending", ["ca", "insecure"])
async def test_a_certificate_of_ones_own_is_taken_by_probes_and_requests(
    tmp_path: Path, ending: str
) -> None:
    tls = certificate(tmp_path, HERE)
    env = {CA: str(tmp_path / "cert.pem")} if ending == "ca" else {INSECURE: "true"}
    async with gateway("Authorization", BASIC, tls) as there:
        async with proxy_to(tmp_path, **env, **{U: with_login(there.url)}) as proxy:
            url = f"{proxy.url}/api/embed"
            async with proxy.session.post(url, data=b"{}") as answer:
                assert answer.status == 200
        backend = opened(configured(tmp_path, **env, **{U: with_login(there.url)}))
        (finding,) = await backend.check()

    assert finding.ok


async def test_a_certificate_for_another_name_is_not_taken_with_a_ca(
    tmp_path: Path,
) -> None:
    tls = certificate(tmp_path, x509.DNSName("other.example"))
    async with gateway(tls=tls) as there:
        env = {U: there.url, CA: str(tmp_path / "cert.pem")}
        (finding,) = await opened(configured(tmp_path, **env)).check()

    assert not finding.ok
    assert "a certificate that is not trusted" in finding.detail
    assert "write the name that the certificate is for in" in finding.detail


async def test_an_unknown_certificate_is_told_with_the_setting(tmp_path: Path) -> None:
    async with gateway(tls=certificate(tmp_path, HERE)) as there:
        (finding,) = await opened(configured(tmp_path, **{U: there.url})).check()

    assert "OLLAMA_PROXY_UPSTREAM_CA" in finding.detail


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "set OLLAMA_PROXY_UPSTREAM_TOKEN or OLLAMA_PROXY_UPSTREAM_HEADERS"),
        ({T: TOKEN}, f"refuses the proxy's credentials; mend {T}"),
        ({H: f"X-Api-Key: {KEY}", T: TOKEN}, f"mend {H} or {T}"),
        ({U: "login"}, f"mend {U}"),
        ({INSECURE: "1"}, "it wants credentials; set"),
    ],
)
async def test_a_401_names_the_setting_and_no_secret(
    tmp_path: Path, env: dict[str, str], named: str
) -> None:
    async with gateway("Authorization", "Bearer another") as there:
        url = with_login(there.url) if env.get(U) else there.url
        (finding,) = await opened(configured(tmp_path, **{**env, U: url})).check()

    assert not finding.ok
    assert "answers 401" in finding.detail
    assert named in finding.detail
    assert not any(secret in finding.detail for secret in (PASSWORD, TOKEN, KEY))


def test_a_server_that_repeats_what_it_was_sent_is_quoted_without_it() -> None:
    link = Link(TOKEN, headers={"X-Api-Key": KEY}, is_configured=True)
    upstream = Upstream("http://h", link, setting=U)
    body = f'{{"error":"no entry with {KEY} and {TOKEN}"}}'.encode()
    fault = of_answer(upstream, 500, {}, body)

    assert "no entry with" in fault.message
    assert not any(secret in fault.message for secret in (TOKEN, KEY))


def test_no_secret_is_in_a_repr(tmp_path: Path, secrets: tuple[str, ...]) -> None:
    url, headers = with_login("http://h"), f"X-Api-Key: {KEY}"
    for env in ({U: url, H: headers}, {U: "http://h", T: TOKEN, H: headers}):
        settings = configured(tmp_path, **env)
        backend = opened(settings)
        link = access_link(settings.of(StaticSettings))
        own = settings.of(StaticSettings)
        shown = f"{settings!r}{settings}{own!r}{own}{link!r}{vars(backend)!r}"
        dumped = repr(own.model_dump()) + own.model_dump_json()

        assert not [one for one in secrets if one in shown + dumped]


def test_certificates_that_are_gone_since_are_told_as_such(tmp_path: Path) -> None:
    certificate(tmp_path, HERE)
    path = tmp_path / "cert.pem"
    settings = configured(tmp_path, **{U: "https://h", CA: str(path)})
    path.unlink()

    with pytest.raises(SettingsError, match="can't be read as certificates"):
        access_link(settings.of(StaticSettings))


def test_credentials_make_no_gateway(tmp_path: Path) -> None:
    link = access_link(access(tmp_path, **{U: "http://h", T: TOKEN}))

    assert not Upstream("http://h", link).has_gateway
    assert Upstream("http://h", link, is_gateway=True).has_gateway
    assert Upstream("http://h", Link("token")).has_gateway


def test_without_any_of_these_there_is_no_link(tmp_path: Path) -> None:
    assert access_link(access(tmp_path, **{U: "http://h"})) is None


@pytest.mark.parametrize("name", [T, H, CA, INSECURE])
def test_another_backend_takes_none_of_them(tmp_path: Path, name: str) -> None:
    values = {T: TOKEN, H: f"X-Api-Key: {KEY}", CA: "/x.pem", INSECURE: "true"}
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, OLLAMA_PROXY_BACKEND="local", **{name: values[name]})

    assert caught.value.faults == (
        f"{name}: only the backend 'static' takes it, not 'local'; remove it",
    )


@pytest.mark.parametrize(
    "env",
    [
        {U: "http://u:p@h", T: TOKEN},
        {U: "http://h", T: TOKEN, H: f"authorization: {KEY}"},
        {U: "http://u:p@h", H: f"Authorization: {KEY}"},
    ],
)
def test_only_one_of_them_has_an_authorization(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match="keep one of them") as caught:
        configured(tmp_path, **env)

    assert not any(secret in str(caught.value) for secret in (TOKEN, KEY))


@pytest.mark.parametrize("content", [None, "", "no certificate", "folder"])
def test_certificates_that_cannot_be_read_are_told_at_start(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="can't be read as certificates") as caught:
        configured(tmp_path, **{U: "https://h", CA: str(path)})

    assert CA in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"X-Key {KEY}",
        f"X Key: {KEY}",
        f": {KEY}",
        "X-Key:",
        f"X-Key: {KEY}\x01",
        f"X-Key: {KEY}é",
        f"X-Key: {KEY}\nx-key: {KEY}",
        f"Host: {KEY}",
        f"Connection: {KEY}",
        f"Transfer-Encoding: {KEY}",
        f"content-length: {KEY}",
        f"Content-Type: {KEY}",
        f"Expect: {KEY}",
        f"Proxy-Authorization: {KEY}",
        f"X-Ollama-Proxy-Via: {KEY}",
        f"X-Ollama-Proxy-Token: {KEY}",
        f"X-Key: {KEY * 800}",
        "\n".join(f"X-{number}: {KEY}" for number in range(MOST_HEADERS + 1)),
        f'{{"X-Key": "{KEY}"',
        f'{{"X-Key": ["{KEY}"]}}',
        f'{{"X-Key": "{KEY}", "X-Key": "{KEY}"}}',
        f'{{"X-Key": "{KEY}\\r\\nX-Other: 1"}}',
        '{"a":' * 5000,
    ],
)
def test_headers_that_cannot_be_sent_are_refused_untold(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, **{U: "http://h", H: text})

    assert str(caught.value).startswith(f"{H}: ")
    assert KEY not in str(caught.value)
    assert len(caught.value.faults) == 1


def test_headers_are_a_table_in_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'upstream_url = "http://h"\n[upstream_headers]\nX-Api-Key = "k: v, w"\n'
    )
    link = access_link(load_settings({}, path).of(StaticSettings))

    assert link is not None
    assert dict(link.headers) == {"X-Api-Key": "k: v, w"}
    assert "k: v" not in repr(load_settings({}, path)) + repr(link)


@pytest.mark.parametrize("text", ["a b", "a\nb", "é", "x" * 8193, 5])
def test_a_token_that_cannot_be_sent_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="this is no token"):
        parse_token(text)


def test_headers_may_have_any_visible_value() -> None:
    (value,) = parse_headers("X-Key:  a: b, {c}\td ").values()

    assert value.get_secret_value() == "a: b, {c}\td"


WARNED = [
    ({U: "https://h.example", INSECURE: "1"}, "is not verified"),
    ({U: "http://h.example", INSECURE: "1"}, "speaks no TLS"),
    ({U: "http://me:pa%2Fss-w0rd-1@h.example"}, "travel in the clear"),
    ({U: "http://[2606:4700::1]", T: TOKEN}, "travel in the clear"),
]


@pytest.mark.parametrize(("env", "said"), WARNED)
def test_what_is_unsafe_is_told(tmp_path: Path, env: dict[str, str], said: str) -> None:
    (warning,) = access_warnings(access(tmp_path, **env))

    assert said in warning
    assert "OLLAMA_PROXY_UPSTREAM_" in warning
    assert PASSWORD not in warning


@pytest.mark.parametrize(
    "url", ["http://u:p@ollama", "http://u:p@10.1.2.3:1", "https://u:p@h.example"]
)
def test_a_login_on_ones_own_network_is_not_warned_of(tmp_path: Path, url: str) -> None:
    assert access_warnings(access(tmp_path, **{U: url})) == []


@pytest.fixture
def secrets() -> tuple[str, ...]:
    return PASSWORD, "pa%2Fss-w0rd-1", BASIC.partition(" ")[2], TOKEN, KEY


@contextlib.contextmanager
def told_by(state: Path, env: dict[str, Any]) -> Iterator[list[str]]:
    """Run a proxy as a process; collect its visible output."""
    told: list[str] = []
    with proxy_process(state, **env) as proxy:
        proxy.until(lambda: proxy.get("/status")["instance_status"] is not None)
        asked = {"model": "tiny", "input": "x"}
        told += [str(proxy.post(f"/{way}", asked)) for way in ("api/embed", "v1/x")]
        for path in ("/status", "/-/journal", "/-/pulls"):
            with contextlib.suppress(OSError):
                told.append(json.dumps(proxy.get(path)))
        told.append(Path(f"/proc/{proxy.process.pid}/cmdline").read_text())
        where = clean_environment(
            OLLAMA_PROXY_STATE_DIR=str(state), OLLAMA_HOST=proxy.url, **env
        )
        told += [output_of("status", where), output_of("check", where)]
        yield told
        proxy.terminate()
        told.append(proxy.log.read_text())
    told += [output_of("check", where)]
    told += [path.read_bytes().decode("latin-1") for path in files_in(state)]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def output_of(command: str, env: dict[str, str]) -> str:
    ended = subprocess.run(
        [*PROGRAM, command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("is_right", [True, False])
async def test_no_secret_is_in_log_status_check_state_or_command_line(
    tmp_path: Path, secrets: tuple[str, ...], *, is_right: bool
) -> None:
    value = BASIC if is_right else "another"
    async with gateway("Authorization", value) as there:
        env = {
            U: with_login(there.url),
            H: f"X-Api-Key: {KEY}",
            INSECURE: "true",
            "LOG_LEVEL": "debug",
        }
        told = await _in_a_thread(tmp_path / "state", env)

    everything = "\n".join(told)
    assert there.url in everything
    assert log.UPSTREAM_UNSAFE in everything
    assert {headers.get("X-Api-Key") for _, headers in there.seen} == {KEY}
    assert not [secret for secret in secrets if secret in everything]


async def _in_a_thread(state: Path, env: dict[str, str]) -> list[str]:
    def run() -> list[str]:
        with told_by(state, env) as told:
            pass
        return told

    return await asyncio.to_thread(run)
