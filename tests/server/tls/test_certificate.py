"""A certificate that can't be used: one sentence that says what to do."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_proxy.server.tls.certificate import (
    CertificateError,
    CertificateFiles,
    expiry_words,
    load,
)
from tests.certificates import DAY_S, WALL, PrivateCa, certificate, pem_key, private_ca

Change = Callable[[PrivateCa], object]


def a_folder(ca: PrivateCa) -> None:
    ca.files.key.unlink()
    ca.files.key.mkdir()


def a_pipe(ca: PrivateCa) -> None:
    ca.files.key.unlink()
    os.mkfifo(ca.files.key)


def a_device(ca: PrivateCa) -> None:
    ca.files.key.unlink()
    ca.files.key.symlink_to("/dev/zero")


FAULTS: dict[str, tuple[Change, str]] = {
    "no certificate": (
        lambda ca: ca.files.certificate.unlink(),
        r"proxy.crt' in OLLAMA_PROXY_TLS_CERT can't be read \(No such file",
    ),
    "no key": (
        lambda ca: ca.files.key.unlink(),
        r"proxy.key' in OLLAMA_PROXY_TLS_KEY can't be read \(No such file",
    ),
    "a folder": (
        a_folder,
        "is no regular file",
    ),
    "a pipe": (
        a_pipe,
        "is no regular file",
    ),
    "a device": (
        a_device,
        "is no regular file",
    ),
    "a huge file": (
        lambda ca: ca.files.certificate.write_bytes(b"x" * (1 << 20) + b"x"),
        "more than 1 MiB",
    ),
    "an empty certificate": (
        lambda ca: ca.files.certificate.write_bytes(b""),
        "has no PEM certificate",
    ),
    "an empty key": (
        lambda ca: ca.files.key.write_bytes(b""),
        "has no PEM private key",
    ),
    "the files swapped": (
        lambda ca: (
            ca.files.certificate.write_bytes(pem_key()),
            ca.files.key.write_bytes(certificate()),
        ),
        "TLS_CERT has no PEM certificate",
    ),
    "a damaged certificate": (
        lambda ca: ca.files.certificate.write_bytes(
            re.sub(rb"\nM\w{20}", b"\nMAAA", certificate())
        ),
        "has a damaged certificate",
    ),
    "a damaged key": (
        lambda ca: ca.files.key.write_bytes(
            re.sub(rb"\nM\w{10}", b"\nMAAA", pem_key())
        ),
        "has a damaged private key",
    ),
    "an encrypted key": (
        lambda ca: ca.files.key.write_bytes(pem_key(0, b"secret")),
        "is encrypted, and nobody types its passphrase",
    ),
    "another's key": (
        lambda ca: ca.files.key.write_bytes(pem_key(1)),
        "does not fit the first certificate of",
    ),
    "the authority first": (
        lambda ca: ca.files.certificate.write_bytes(
            ca.authority.read_bytes() + certificate()
        ),
        "does not fit the first certificate of",
    ),
    "expired": (
        lambda ca: ca.renew(0, begins_s=-2 * DAY_S, ends_s=-DAY_S),
        r"expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC; renew it",
    ),
    "of the future": (
        lambda ca: ca.renew(0, begins_s=DAY_S),
        r"is not valid before \d{4}-",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_certificate_that_can_not_be_used_is_one_sentence(
    tmp_path: Path, fault: str
) -> None:
    ca = private_ca(tmp_path)
    change, words = FAULTS[fault]
    change(ca)

    with pytest.raises(CertificateError, match=words) as caught:
        load(ca.files, WALL())
    assert "\n" not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    ca.files.key.chmod(0)

    with pytest.raises(CertificateError, match=r"proxy.key'.*Permission denied"):
        load(ca.files, WALL())


def test_on_a_machine_without_a_date_none_is_too_old(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)

    assert load(ca.files, 0.0).ends_at > WALL()


OPENSSL = {
    "rsa": ("genrsa", "-out", "key", "2048"),
    "rsa of before": ("genrsa", "-traditional", "-out", "key", "2048"),
    "curve with parameters": ("ecparam", "-genkey", "-name", "prime256v1"),
    "ed25519": ("genpkey", "-algorithm", "ed25519", "-out", "key"),
}


def openssl(folder: Path, *words: str) -> bytes:
    ran = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, check=True, timeout=60
    )
    return ran.stdout


@pytest.mark.parametrize("kind", OPENSSL)
def test_keys_of_every_usual_kind_are_taken(tmp_path: Path, kind: str) -> None:
    printed = openssl(tmp_path, *OPENSSL[kind])
    if printed:
        (tmp_path / "key").write_bytes(printed)
    request = ("req", "-x509", "-key", "key", "-subj", "/CN=x", "-out", "crt")
    openssl(tmp_path, *request)

    files = CertificateFiles(tmp_path / "crt", tmp_path / "key")
    assert load(files, WALL()).own.startswith("-----BEGIN CERTIFICATE")


def test_a_key_that_openssl_encrypted_of_old_is_told(tmp_path: Path) -> None:
    words = ("genrsa", "-traditional", "-aes256", "-passout", "pass:abcd")
    (tmp_path / "key").write_bytes(openssl(tmp_path, *words))
    (tmp_path / "crt").write_bytes(certificate())

    with pytest.raises(CertificateError, match="is encrypted"):
        load(CertificateFiles(tmp_path / "crt", tmp_path / "key"), WALL())


def test_one_file_may_have_both_with_words_around_them(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    chain = certificate() + certificate(99, is_authority=True)
    both.write_bytes(b"Bag Attributes\n" + chain + b"\nkey:\n" + pem_key())

    loaded = load(CertificateFiles(both, both), WALL())
    assert loaded.own.encode() == certificate_of(chain)


def certificate_of(chain: bytes) -> bytes:
    end = b"-----END CERTIFICATE-----\n"
    return chain[: chain.index(end) + len(end)]


def test_a_date_that_is_not_known_expires_nothing() -> None:
    assert expiry_words(ends_at=1.0, wall=2.0) is None
    assert "expired on 1970-01-01" in str(expiry_words(1.0, WALL()))
    assert expiry_words(WALL() + 9, WALL()) is None


def test_a_path_that_no_file_can_have_is_one_sentence() -> None:
    files = CertificateFiles(Path("a\0b"), Path("a\0b"))
    assert files.stamp() == ((), ())
    with pytest.raises(CertificateError, match="can't be read"):
        load(files, WALL())


def test_a_key_that_openssl_finds_too_weak_is_one_sentence(tmp_path: Path) -> None:
    openssl(tmp_path, "genrsa", "-out", "key", "1024")
    openssl(tmp_path, "req", "-x509", "-key", "key", "-subj", "/CN=x", "-out", "crt")

    with pytest.raises(CertificateError, match=r"OpenSSL refuses .*make a new pair"):
        load(CertificateFiles(tmp_path / "crt", tmp_path / "key"), WALL())
