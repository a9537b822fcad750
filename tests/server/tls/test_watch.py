"""The renewed certificate is read again; the last good one stays meanwhile."""

from pathlib import Path

import structlog

from ollama_proxy.base import log
from ollama_proxy.server.tls.watch import ServerCertificate
from tests.certificates import DAY_S, WALL, pem_key, private_ca, replace


def known(served: ServerCertificate) -> tuple[str, str | None]:
    return served.loaded.own, served.problem


async def test_a_renewed_pair_is_taken_and_told(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    told: list[str] = []
    served = ServerCertificate(ca.files, WALL, lambda loaded: told.append(loaded.own))
    before = served.loaded
    await served.look()
    assert served.loaded is before

    ca.renew(1)
    await served.look()

    assert told == [ca.files.certificate.read_text()] == [served.loaded.own]
    assert served.loaded.context is not before.context


async def test_between_certificate_and_key_nothing_is_broken_nor_told(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path)
    served = ServerCertificate(ca.files, WALL)
    before = served.loaded

    ca.renew_certificate(1)
    with structlog.testing.capture_logs() as logged:
        await served.look()
    assert (served.loaded, served.problem, logged) == (before, None, [])

    replace(ca.files.key, pem_key(1))
    await served.look()
    assert served.loaded.own == ca.files.certificate.read_text()


async def test_a_fault_that_stays_is_told_once_and_until_it_is_mended(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path)
    served = ServerCertificate(ca.files, WALL)
    before = served.loaded

    ca.files.key.unlink()
    with structlog.testing.capture_logs() as logged:
        for _ in range(4):
            await served.look()
    assert served.loaded is before
    assert "proxy.key' in OLLAMA_PROXY_TLS_KEY can't be read" in str(served.problem)
    assert "last good one" in served.body()["problem"]
    assert [line["event"] for line in logged] == [log.CERTIFICATE_UNUSABLE]

    ca.renew(1)
    await served.look()
    assert known(served) == (ca.files.certificate.read_text(), None)


async def test_the_same_files_again_mend_a_fault(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    served = ServerCertificate(ca.files, WALL)
    away = tmp_path / "away"
    ca.files.key.rename(away)
    await served.look()
    await served.look()
    assert served.problem is not None

    away.rename(ca.files.key)
    await served.look()
    assert served.problem is None


async def test_an_expired_one_does_not_replace_a_good_one(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    served = ServerCertificate(ca.files, WALL)
    before = served.loaded

    ca.renew(1, begins_s=-2 * DAY_S, ends_s=-DAY_S)
    await served.look()
    await served.look()

    assert served.loaded is before
    assert "expired on" in str(served.problem)


async def test_one_that_becomes_valid_later_is_taken_then(tmp_path: Path) -> None:
    ca, wall = private_ca(tmp_path), [WALL()]
    served = ServerCertificate(ca.files, lambda: wall[0])
    ca.renew(1, begins_s=DAY_S)
    await served.look()
    await served.look()
    assert "is not valid before" in str(served.problem)

    wall[0] += 2 * DAY_S
    await served.look()
    assert known(served) == (ca.files.certificate.read_text(), None)


async def test_one_that_expires_while_it_is_used_is_told(tmp_path: Path) -> None:
    ca, wall = private_ca(tmp_path), [WALL()]
    served = ServerCertificate(ca.files, lambda: wall[0])
    wall[0] += 100 * DAY_S
    with structlog.testing.capture_logs() as logged:
        await served.look()
        await served.look()

    assert "so clients refuse it" in str(served.problem)
    assert [line["event"] for line in logged] == [log.CERTIFICATE_UNUSABLE]


async def test_a_folder_that_a_link_switches_is_seen(tmp_path: Path) -> None:
    """Kubernetes replaces both files at once, by a link to another folder."""
    for number in (0, 1):
        private_ca(tmp_path / str(number), number)
    link = tmp_path / "data"
    link.symlink_to("0")
    files = private_ca(tmp_path / "0").files
    linked = type(files)(link / "proxy.crt", link / "proxy.key")
    served = ServerCertificate(linked, WALL)

    fresh = tmp_path / "fresh"
    fresh.symlink_to("1")
    fresh.rename(link)
    await served.look()

    assert served.loaded.own == (tmp_path / "1/proxy.crt").read_text()
