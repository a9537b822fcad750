"""The authority that signs the certificates of the hub and of its nodes."""

import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.nodes.node_keys import NodeKeyId
from ollama_proxy.core.nodes.tls_names import HUB_NAME, node_name
from ollama_proxy.hub.authority import CertificateRequestError, HubAuthority
from ollama_proxy.node.certificate_request import certificate_request, make_private_key
from ollama_proxy.upstream.hub_trust import fingerprint_of, trusting
from tests.hub.handshakes import shake_hands
from tests.virtual_time import SetClock

ONE, OTHER = NodeKeyId("1" * 16), NodeKeyId("2" * 16)
YEAR_S = 365 * 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> HubAuthority:
    return HubAuthority(tmp_path, SystemClock())


def server_of(
    authority: HubAuthority, key_id: NodeKeyId, folder: Path
) -> ssl.SSLContext:
    private = make_private_key()
    signed = authority.sign(certificate_request(private), key_id)
    (folder / "node.pem").write_text(signed + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "node.pem")
    return context


def client_of(authority: HubAuthority, key_id: NodeKeyId) -> ssl.SSLContext:
    context = authority.link(key_id, is_tls=True).context
    assert context is not None
    return context


def test_the_hub_meets_the_node_with_that_key_and_no_other(
    authority: HubAuthority, tmp_path: Path
) -> None:
    server = server_of(authority, ONE, tmp_path)
    shake_hands(client_of(authority, ONE), server, node_name(ONE))
    for name in (node_name(OTHER), HUB_NAME, "192.168.1.7"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(client_of(authority, OTHER), server, name)


def test_a_node_meets_the_hub_and_not_another_node_in_its_place(
    authority: HubAuthority, tmp_path: Path
) -> None:
    trusted = trusting(authority.certificate)
    shake_hands(trusted, authority.hub_context, HUB_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(trusted, server_of(authority, ONE, tmp_path), HUB_NAME)


def test_a_node_does_not_meet_the_hub_of_another_deployment(
    authority: HubAuthority, tmp_path: Path
) -> None:
    other = HubAuthority(tmp_path / "other", SystemClock())
    assert other.fingerprint != authority.fingerprint
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(trusting(other.certificate), authority.hub_context, HUB_NAME)


@pytest.mark.parametrize("offset_s", [-50 * YEAR_S, 50 * YEAR_S])
def test_the_date_of_no_machine_matters(offset_s: float, tmp_path: Path) -> None:
    clock = SetClock(SystemClock().wall() + offset_s)
    authority = HubAuthority(tmp_path, clock)
    shake_hands(trusting(authority.certificate), authority.hub_context, HUB_NAME)
    server = server_of(authority, ONE, tmp_path)
    shake_hands(client_of(authority, ONE), server, node_name(ONE))


def test_it_can_vouch_for_no_name_or_address_of_anybody_else(
    authority: HubAuthority, tmp_path: Path
) -> None:
    # Even a thief of its key can't, whatever they sign.
    signed = authority._signed(
        ec.generate_private_key(ec.SECP256R1()).public_key(), "x"
    )
    assert signed.extensions.get_extension_for_class(x509.BasicConstraints).critical
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = authority._signed(key.public_key(), "bank.example")
    (tmp_path / "thief.pem").write_bytes(
        foreign.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "thief.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        shake_hands(trusting(authority.certificate), server, "bank.example")


def test_it_is_made_once_and_its_secrets_are_its_users_alone(tmp_path: Path) -> None:
    os.umask(0o022)
    first = HubAuthority(tmp_path, SystemClock())
    again = HubAuthority(tmp_path, SystemClock())
    assert again.fingerprint == first.fingerprint
    assert again.certificate == first.certificate
    assert again.hub_token(ONE) == first.hub_token(ONE)
    shake_hands(trusting(first.certificate), again.hub_context, HUB_NAME)
    folder = tmp_path / "hub"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("left", ["nothing", "a key alone", "a damaged certificate",
                                  "half a file", "another's certificate"])  # fmt: skip
def test_a_start_that_was_killed_is_gone_on_with(left: str, tmp_path: Path) -> None:
    first = HubAuthority(tmp_path, SystemClock())
    folder = tmp_path / "hub"
    match left:
        case "nothing":
            for path in folder.iterdir():
                path.unlink()
        case "a key alone":
            for name in ("authority.crt", "hub.key", "hub.crt"):
                (folder / name).unlink()
        case "a damaged certificate":
            (folder / "authority.crt").write_bytes(b"-----BEGIN CERT")
        case "half a file":
            (folder / "authority.new").write_bytes(b"-----BEGIN")
            (folder / "hub.new").write_bytes(b"-----BEGIN")
        case _:
            other = HubAuthority(tmp_path / "other", SystemClock())
            (folder / "authority.crt").write_text(other.certificate)
    again = HubAuthority(tmp_path, SystemClock())
    shake_hands(trusting(again.certificate), again.hub_context, HUB_NAME)
    assert (again.fingerprint == first.fingerprint) is (left != "nothing")
    assert fingerprint_of(again.certificate) == again.fingerprint


def test_a_key_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    HubAuthority(tmp_path, SystemClock())
    (tmp_path / "hub" / "authority.key").write_bytes(b"rubbish")
    with pytest.raises(StartupError, match="every node then has to join again"):
        HubAuthority(tmp_path, SystemClock())


def test_a_new_certificate_of_the_hub_is_shown_at_once(
    authority: HubAuthority, tmp_path: Path
) -> None:
    before = (tmp_path / "hub" / "hub.crt").read_bytes()
    authority.renew_hub_certificate()
    assert (tmp_path / "hub" / "hub.crt").read_bytes() != before
    shake_hands(trusting(authority.certificate), authority.hub_context, HUB_NAME)


def test_the_hubs_token_is_another_one_for_each_key(authority: HubAuthority) -> None:
    assert authority.hub_token(ONE) != authority.hub_token(OTHER)
    link = authority.link(ONE, is_tls=True)
    assert authority.hub_token(ONE) not in repr(link)
    assert authority.link(ONE, is_tls=False).context is None


def request_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = made.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["another curve", "RSA"],
)
def test_another_kind_of_key_is_not_signed(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, authority: HubAuthority
) -> None:
    with pytest.raises(CertificateRequestError, match="P-256"):
        authority.sign(request_of(key), ONE)


@pytest.mark.parametrize("request_", ["", "x", "\udcff", "-----BEGIN CERTIFICATE"
                                      " REQUEST-----\nAAAA\n-----END CERTIFICATE"
                                      " REQUEST-----", "x" * 10_000])  # fmt: skip
def test_what_is_no_request_is_refused_in_a_sentence(
    request_: str, authority: HubAuthority
) -> None:
    with pytest.raises(CertificateRequestError, match="request"):
        authority.sign(request_, ONE)


def test_a_request_that_its_key_did_not_sign_is_refused(
    authority: HubAuthority,
) -> None:
    mine = x509.load_pem_x509_csr(certificate_request(make_private_key()).encode())
    raw = bytearray(mine.public_bytes(serialization.Encoding.DER))
    raw[-1] ^= 1
    damaged = ssl.DER_cert_to_PEM_cert(bytes(raw)).replace(
        "CERTIFICATE", "CERTIFICATE REQUEST"
    )
    with pytest.raises(CertificateRequestError):
        authority.sign(damaged, ONE)


def test_the_names_that_a_request_asks_for_count_for_nothing(
    authority: HubAuthority,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(HUB_NAME)])
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = asked.public_bytes(serialization.Encoding.PEM).decode()
    signed = x509.load_pem_x509_certificate(authority.sign(pem, ONE).encode())
    found = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.DNSName) == [node_name(ONE)]
    limits = signed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not limits.value.ca
