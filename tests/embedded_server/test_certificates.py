"""Certificates: made, kept, renewed under the same key, and the owner's own checked; by openssl's rules where it is."""

from __future__ import annotations

import base64
import hashlib
import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from embedded_server.certificates import (
    CERTIFICATE_FILE,
    KEY_FILE,
    CertificateInvalid,
    ServerCertificate,
    own_certificate,
    public_key_pin,
    self_signed,
)
from embedded_server.tls_terminator import tls_context
from engine.errors import ServerStartError, SettingsInvalid

NOW = datetime(2031, 5, 4, 12, tzinfo=UTC)
ADDRESSES = ("192.168.1.24", "fe80::1%eth0")


def make(folder: Path, addresses: tuple[str, ...] = ADDRESSES, now: datetime = NOW) -> ServerCertificate:
    return self_signed(folder, addresses, "Workbench", now)


def loaded(made: ServerCertificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate_file.read_bytes())


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


# -- self-signed ------------------------------------------------------------------------------------------------------
def test_it_is_what_a_server_s_certificate_has_to_be(tmp_path: Path) -> None:
    certificate = loaded(make(tmp_path / "tls"))
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["workbench", "workbench.local", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == [
        "192.168.1.24", "fe80::1", "127.0.0.1", "::1",
    ]  # fmt: skip
    constraints = extension(certificate, x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extension(certificate, x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.not_valid_before_utc <= NOW
    assert certificate.not_valid_after_utc == NOW + timedelta(days=365)
    assert certificate.subject == certificate.issuer


def test_serial_numbers_are_random(tmp_path: Path) -> None:
    serials = {loaded(make(tmp_path / str(n))).serial_number for n in range(4)}
    assert len(serials) == 4
    assert min(serials) > 1 << 64


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    made = make(tmp_path / "tls")
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {CERTIFICATE_FILE, KEY_FILE}


def test_facts_are_those_that_openssl_and_curl_tell(tmp_path: Path) -> None:
    made = make(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(made.certificate_file.read_text())
    assert made.fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
    spki = loaded(made).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    assert made.pin == "sha256//" + base64.b64encode(hashlib.sha256(spki).digest()).decode() == public_key_pin(der)
    line = made.curl_line("192.168.1.24", 8765)
    assert line == f"curl --insecure --pinnedpubkey '{made.pin}' https://192.168.1.24:8765/health/live"
    assert "https://[::1]:8765/" in made.curl_line("::1", 8765)
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine")
    told = subprocess.run(
        [openssl, "x509", "-in", made.certificate_file, "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip().partition("=")[2] == made.fingerprint


def test_it_is_kept_while_it_covers_what_is_asked(tmp_path: Path) -> None:
    first = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert make(tmp_path) == first
    assert make(tmp_path, ("192.168.1.24",)) == first  # names one address too many: still good
    assert make(tmp_path, now=NOW + timedelta(days=365 - 14, seconds=-1)) == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("addresses", "now"),
    [
        (("10.0.0.7",), NOW),
        (ADDRESSES, NOW + timedelta(days=365 - 14)),
        (ADDRESSES, NOW + timedelta(days=800)),
        (ADDRESSES, NOW - timedelta(days=2)),
    ],
    ids=["another address", "fourteen days left", "ended", "the clock was set back"],
)
def test_renewal_keeps_the_pin(tmp_path: Path, addresses: tuple[str, ...], now: datetime) -> None:
    first, key = make(tmp_path), (tmp_path / KEY_FILE).read_bytes()
    renewed = make(tmp_path, addresses, now)
    assert renewed.fingerprint != first.fingerprint
    assert renewed.pin == first.pin
    assert (tmp_path / KEY_FILE).read_bytes() == key
    assert renewed.ends == now + timedelta(days=365)
    assert renewed.notices == ()


def test_another_computer_s_name_renews_it(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert self_signed(tmp_path, ADDRESSES, "bench-2", NOW).fingerprint != first.fingerprint


def test_a_damaged_certificate_is_signed_anew_under_the_same_key(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.certificate_file.write_text("no certificate")
    assert make(tmp_path).pin == first.pin


@pytest.mark.parametrize("damage", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_made_anew_and_said(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    first = make(tmp_path)
    first.key_file.write_bytes(damage)
    second = make(tmp_path)
    assert second.pin != first.pin
    assert "new pin" in second.notices[0]
    assert "new pin" in caplog.text
    tls_context(second.certificate_file, second.key_file)


def test_a_key_that_others_could_read_is_closed_and_said(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.key_file.chmod(0o644)
    second = make(tmp_path)
    assert second.pin == first.pin
    assert "could read" in second.notices[0]
    assert stat.S_IMODE(second.key_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "bäckerei", "x" * 63, "büro" * 40, "a" * 70])
def test_names_that_do_not_fit_are_written_so_or_left_out(tmp_path: Path, name: str) -> None:
    certificate = loaded(self_signed(tmp_path, (), name, NOW))
    names = extension(certificate, x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert names[-1] == "localhost"
    assert all(n.isascii() for n in names)
    assert len(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value) <= 64


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerStartError, match=r"^The certificate cannot be kept: .*\.$") as caught:
        make(tmp_path / "file" / "tls")
    assert caught.value.code == "permission_denied"


# -- the owner's own --------------------------------------------------------------------------------------------------
class Authority:
    """A small authority, and leaves it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lab authority")])
        self.root = self._sign(self.name, self.key, NOW - timedelta(days=1), NOW + timedelta(days=900), ca=True)

    def leaf(
        self, *, key: Any = None, starts: datetime = NOW - timedelta(days=1), days: int = 90, password: bytes = b""
    ) -> tuple[Path, Path]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workbench")])
        leaf = self._sign(subject, key, starts, starts + timedelta(days=days))
        return self.write([leaf, self.root], key, password)

    def write(self, chain: list[x509.Certificate], key: Any, password: bytes = b"") -> tuple[Path, Path]:
        certificate_file, key_file = self.folder / "mine.pem", self.folder / "mine.key"
        certificate_file.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
        closed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)
        key_file.write_bytes(pem)
        key_file.chmod(0o600)
        return certificate_file, key_file

    def _sign(
        self, subject: x509.Name, key: Any, starts: datetime, ends: datetime, ca: bool = False
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(starts)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_own_pem_is_taken_with_its_chain(authority: Authority, kind: str) -> None:
    key = rsa.generate_private_key(65_537, 2048) if kind == "rsa" else None
    files = authority.leaf(key=key)
    own = own_certificate(*files, NOW)
    assert (own.certificate_file, own.key_file, own.self_signed, own.notices) == (*files, False, ())
    assert own.fingerprint != ""
    tls_context(own.certificate_file, own.key_file)


def refused(certificate_file: Path, key_file: Path, now: datetime = NOW) -> str:
    with pytest.raises(CertificateInvalid) as caught:
        own_certificate(certificate_file, key_file, now)
    sentence = str(caught.value)
    assert caught.value.code == "settings_invalid"
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_files_that_are_not_there_or_no_pem(authority: Authority, tmp_path: Path) -> None:
    certificate_file, key_file = authority.leaf()
    assert "cannot be read: No such file" in refused(tmp_path / "none.pem", key_file)
    assert "cannot be read" in refused(certificate_file, tmp_path)
    assert "no certificate in PEM form" in refused(key_file, key_file)
    assert "no private key in PEM form" in refused(certificate_file, certificate_file)
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    assert "no certificate in PEM form" in refused(tmp_path / "garbage", key_file)
    assert "no private key in PEM form" in refused(certificate_file, tmp_path / "garbage")


def test_another_certificate_s_key(authority: Authority, tmp_path: Path) -> None:
    certificate_file, key_file = authority.leaf()
    other = tmp_path / "other.key"
    other.write_bytes(key_file.read_bytes())
    authority.leaf()
    assert "is not that of the certificate" in refused(certificate_file, other)


def test_an_encrypted_key(authority: Authority) -> None:
    assert "is encrypted" in refused(*authority.leaf(password=b"secret"))


def test_a_key_that_tls_does_not_use(authority: Authority) -> None:
    assert "of a kind that TLS does not use" in refused(*authority.leaf(key=dsa.generate_private_key(2048)))


def test_ended_not_begun_and_about_to_end(authority: Authority) -> None:
    files = authority.leaf(days=90)
    ends = NOW + timedelta(days=89)
    assert f"ended on {ends.date()}" in refused(*files, ends)
    assert own_certificate(*files, ends - timedelta(seconds=1)).notices == (
        f"The certificate mine.pem ends on {ends.date()}.",
    )
    assert own_certificate(*files, ends - timedelta(days=14)).notices == ()
    assert own_certificate(*files, ends - timedelta(days=13)).notices != ()
    files = authority.leaf(starts=NOW + timedelta(days=3))
    assert f"is not valid before {(NOW + timedelta(days=3)).date()}" in refused(*files)


def test_what_is_only_said(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificate_file, key_file = authority.leaf()
    key_file.chmod(0o640)
    stranger = Authority(authority.folder).root
    with certificate_file.open("ab") as handle:
        handle.write(stranger.public_bytes(serialization.Encoding.PEM))
    notices = own_certificate(certificate_file, key_file, NOW).notices
    assert notices == (
        "Others on this computer may read the key in mine.key.",
        "The certificates in mine.pem do not follow each other as a chain.",
    )
    assert all(notice in caplog.text for notice in notices)


def test_what_openssl_does_not_take_is_said(authority: Authority) -> None:
    small = rsa.generate_private_key(65_537, 1024)
    files = authority.leaf(key=small)
    own_certificate(*files, NOW)
    with pytest.raises(SettingsInvalid, match="TLS does not take"):
        tls_context(*files)
