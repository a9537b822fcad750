"""The private link: requests go only to the launch that was meant."""

import asyncio
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.http.headers import GUARD_HEADER, GUARD_TOKEN
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority, Certificate
from ollama_proxy.upstream.endpoint import (
    Link,
    connection_options,
    credentials,
    is_gateway_response,
)
from tests.virtual_time import SetClock

OURS, THEIRS = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority", SystemClock())


async def _hello(_request: web.Request) -> web.Response:
    return web.Response()


async def speaks_to(authority: Authority, server: Certificate, folder: Path) -> bool:
    """Tell whether the link of our launch accepts a server with that certificate."""
    (folder / "s.crt").write_text(server.certificate)
    (folder / "s.key").write_text(server.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s.crt", folder / "s.key")
    app = web.Application()
    app.router.add_get("/", _hello)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
    options = connection_options(authority.link(OURS))
    try:
        async with aiohttp.ClientSession() as session, session.get(url, **options):
            return True
    except aiohttp.ClientConnectorCertificateError:
        return False
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)


async def test_the_launch_itself_is_spoken_to(
    authority: Authority, tmp_path: Path
) -> None:
    assert await speaks_to(authority, authority.issue(OURS), tmp_path)


async def test_another_launch_is_not(authority: Authority, tmp_path: Path) -> None:
    assert not await speaks_to(authority, authority.issue(THEIRS), tmp_path)


async def test_the_same_name_by_another_authority_is_not(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", SystemClock())

    assert not await speaks_to(authority, other.issue(OURS), tmp_path)


async def test_the_authority_outlives_the_process(tmp_path: Path) -> None:
    first = Authority(tmp_path / "authority", SystemClock())
    second = Authority(tmp_path / "authority", SystemClock())

    assert first.token(OURS) == second.token(OURS)
    assert await speaks_to(second, first.issue(OURS), tmp_path)


def test_each_launch_and_each_deployment_has_a_token_of_its_own(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", SystemClock())
    tokens = {authority.token(OURS), authority.token(THEIRS), other.token(OURS)}

    assert len(tokens) == 3
    assert all(len(token) >= 43 for token in tokens)


def test_only_the_owner_reads_the_keys(authority: Authority, tmp_path: Path) -> None:
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "authority").iterdir()}

    assert modes == {0o600}


def test_a_broken_authority_is_named(tmp_path: Path) -> None:
    (tmp_path / "authority.key").write_text("not a key")
    with pytest.raises(StartupError, match="certificate authority"):
        Authority(tmp_path, SystemClock())


def test_a_guard_behind_a_gateway_gets_a_token_of_its_own() -> None:
    link = Link("for the gateway", headers={GUARD_TOKEN: "for the guard"})

    assert credentials(link) == {
        "Authorization": "Bearer for the gateway",
        GUARD_TOKEN: "for the guard",
    }
    assert "for the" not in repr(link)


def test_only_a_marked_links_unmarked_answer_is_foreign() -> None:
    marked = Link("token", is_marked=True)

    assert is_gateway_response(marked, {})
    assert not is_gateway_response(marked, {GUARD_HEADER: "1"})
    assert not is_gateway_response(Link("token"), {})
    assert not is_gateway_response(None, {})


def test_no_secret_is_in_a_repr(authority: Authority) -> None:
    link, certificate = authority.link(OURS), authority.issue(OURS)

    assert link.token not in repr(link)
    assert "PRIVATE KEY" not in repr(certificate)


def _clock_of(year: int) -> SetClock:
    return SetClock(datetime(year, 1, 1, 12, tzinfo=UTC).timestamp())


def _years_of(pem: bytes) -> tuple[int, int]:
    made = x509.load_pem_x509_certificate(pem)
    return made.not_valid_before_utc.year, made.not_valid_after_utc.year


def _set(clock: SetClock, year: int) -> None:
    clock.date_ahead_s = _clock_of(year).moment - clock.moment


@pytest.mark.parametrize("wrong", [1970, 2015, 2099])
def test_an_authority_made_for_a_wrong_year_is_made_anew_by_the_same_key(
    tmp_path: Path, wrong: int
) -> None:
    clock = _clock_of(wrong)
    authority = Authority(tmp_path, clock)
    token = authority.token(OURS)
    assert _years_of((tmp_path / "authority.crt").read_bytes())[0] == wrong
    _set(clock, 2026)
    issued = authority.issue(OURS)

    assert _years_of(issued.certificate.encode()) == (2026, 2030)
    assert _years_of((tmp_path / "authority.crt").read_bytes()) == (2026, 2035)
    assert Authority(tmp_path, clock).token(OURS) == token
    assert stat.S_IMODE((tmp_path / "authority.crt").stat().st_mode) == 0o600


def test_a_machine_that_has_lost_the_date_keeps_its_authority(tmp_path: Path) -> None:
    Authority(tmp_path, _clock_of(2026))
    Authority(tmp_path, _clock_of(1970)).link(OURS)

    assert _years_of((tmp_path / "authority.crt").read_bytes()) == (2026, 2035)


@pytest.mark.parametrize("year", [1970, 2099])
async def test_an_instance_with_a_certificate_for_a_wrong_year_is_spoken_to(
    tmp_path: Path, year: int
) -> None:
    clock = _clock_of(year)
    authority = Authority(tmp_path / "authority", clock)
    issued = authority.issue(OURS)
    _set(clock, 2026)

    assert await speaks_to(authority, issued, tmp_path)
    assert not await speaks_to(authority, authority.issue(THEIRS), tmp_path)
