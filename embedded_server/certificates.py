"""The server's TLS certificate: one that signs itself, kept in the data folder, or the owner's own from PEM files.

A self-signed certificate is trusted by its **pin**: the SHA-256 of the public key, as ``curl --pinnedpubkey`` takes it
(RFC 7469 §2.4). A certificate is renewed when it ends within 14 days or does not name an address of this computer. The
**key** is kept then, so that the pin, and with it what callers noted down, stays the same; only the fingerprint of the
certificate changes. A new key, and so a new pin, is made only where there is none or its file is damaged.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from embedded_server.addresses import url_host
from engine.errors import ServerStartError, SettingsInvalid
from engine.serving_types import CertificateInfo
from engine.settings import write_atomically

log = logging.getLogger(__name__)

VALID_FOR = timedelta(days=365)
RENEW_BEFORE = timedelta(days=14)
CLOCKS_DIFFER = timedelta(hours=1)
"""A caller's clock may be behind this much and still find the certificate valid."""
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"

_ALWAYS = ("127.0.0.1", "::1")
_LONGEST_NAME = 64  # ub-common-name, RFC 5280 appendix A
_READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class CertificateInvalid(SettingsInvalid):
    """The owner's certificate or key cannot be used. The message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate that can be served, and its facts. ``notices`` are sentences for the owner."""

    certificate_file: Path
    key_file: Path
    fingerprint: str
    """SHA-256 of the certificate: 32 bytes in upper-case hexadecimal, joined by colons, as browsers show it."""
    pin: str
    """``sha256//`` and base64 of the SHA-256 of the public key (SubjectPublicKeyInfo)."""
    ends: datetime
    self_signed: bool
    notices: tuple[str, ...] = ()

    def curl_line(self, address: str, port: int) -> str:
        """A line for a terminal that asks the server and accepts this key only.

        ``--insecure`` switches off the check against authorities; the pin is checked all the same (curl's manual).
        """
        url = f"https://{url_host(address)}:{port}/health/live"
        return f"curl --insecure --pinnedpubkey '{self.pin}' {url}"

    def info(self, address: str, port: int) -> CertificateInfo:
        """The facts as window and command line show them."""
        return CertificateInfo(
            self.fingerprint, self.pin, self.ends.timestamp(), self.self_signed, self.curl_line(address, port),
            self.notices,
        )  # fmt: skip


def public_key_pin(der: bytes) -> str:
    """The pin of a certificate in DER. Raises ValueError where it is none."""
    return _pin(x509.load_der_x509_certificate(der).public_key())


# -- a certificate that signs itself ---------------------------------------------------------------------------------
def self_signed(
    folder: Path, addresses: Iterable[str], host_name: str | None = None, now: datetime | None = None
) -> ServerCertificate:
    """The certificate in ``folder`` for ``addresses``, this computer's name and loopback; made or renewed if needed.

    ``addresses`` are IP addresses. Raises ServerStartError (``permission_denied``): its files cannot be used.
    """
    now = now or datetime.now(UTC)
    subject = _Subject.of(addresses, socket.gethostname() if host_name is None else host_name)
    certificate_file, key_file = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, notices = _kept_key(key_file)
        if key is None:
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomically(key_file, _key_pem(key), mode=0o600)
        certificate = _kept_certificate(certificate_file)
        if certificate is None or not _still_good(certificate, key, subject, now):
            certificate = _sign(key, subject, now)
            write_atomically(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ServerStartError(
            "The certificate cannot be kept: its files cannot be read or written.",
            code="permission_denied",
            details=str(error),
        ) from error
    for notice in notices:
        log.warning(notice)
    return _facts(certificate, certificate_file, key_file, notices, self_signed=True)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a certificate is to name."""

    common_name: str
    dns: tuple[str, ...]
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]

    @staticmethod
    def of(addresses: Iterable[str], host_name: str) -> _Subject:
        parsed = dict.fromkeys(ipaddress.ip_address(text.partition("%")[0]) for text in (*addresses, *_ALWAYS))
        names = [*_host_names(host_name), "localhost"]
        return _Subject((names[0])[:_LONGEST_NAME], tuple(dict.fromkeys(names)), tuple(parsed))

    def alternative_names(self) -> x509.SubjectAlternativeName:
        return x509.SubjectAlternativeName(
            [*(x509.DNSName(name) for name in self.dns), *(x509.IPAddress(address) for address in self.addresses)]
        )

    def covered_by(self, names: x509.SubjectAlternativeName) -> bool:
        return set(self.dns) <= set(names.get_values_for_type(x509.DNSName)) and set(self.addresses) <= set(
            names.get_values_for_type(x509.IPAddress)
        )


def _host_names(host_name: str) -> list[str]:
    """The computer's name and its mDNS name (RFC 6762) as a certificate can hold them: ASCII."""
    if not host_name:
        return []
    try:
        name = host_name.lower() if host_name.isascii() else host_name.encode("idna").decode("ascii")
    except UnicodeError:
        log.warning("the computer's name cannot stand in a certificate: %r", host_name)
        return []
    return [name] if name.endswith(".local") else [name, f"{name}.local"]


def _kept_key(path: Path) -> tuple[ec.EllipticCurvePrivateKey | None, tuple[str, ...]]:
    """(the key that was kept, None where a new one has to be made; what to tell the owner). Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, ()
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None, ("The certificate's key was damaged and has been made anew: callers need the new pin.",)
    if not _is_private(path):
        os.chmod(path, 0o600)
        return key, ("Others on this computer could read the certificate's key until now.",)
    return key, ()


def _kept_certificate(path: Path) -> x509.Certificate | None:
    """None where there is none that can be read; it is then signed anew, under the same key. Raises OSError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("the certificate in %s was damaged and is signed anew", path)
        return None


def _still_good(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, subject: _Subject, now: datetime
) -> bool:
    if _pin(certificate.public_key()) != _pin(key.public_key()):
        return False
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE:
        return False
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return subject.covered_by(names)


def _sign(key: ec.EllipticCurvePrivateKey, subject: _Subject, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + VALID_FOR)
        .add_extension(subject.alternative_names(), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


# -- the owner's own -------------------------------------------------------------------------------------------------
def own_certificate(certificate_file: Path, key_file: Path, now: datetime | None = None) -> ServerCertificate:
    """The owner's certificate (PEM, its chain behind it) and key (PEM, not encrypted), checked.

    Raises CertificateInvalid: a file cannot be read or is not what it should be, the key is another certificate's, the
    certificate has ended or is not valid yet.
    """
    now = now or datetime.now(UTC)
    chain = _own_chain(certificate_file)
    key = _own_key(key_file)
    leaf = chain[0]
    if _pin(leaf.public_key()) != _pin(key.public_key()):
        raise CertificateInvalid(f"The key in {key_file.name} is not that of the certificate {certificate_file.name}.")
    if now >= leaf.not_valid_after_utc:
        raise CertificateInvalid(f"The certificate {certificate_file.name} ended on {_day(leaf.not_valid_after_utc)}.")
    if now < leaf.not_valid_before_utc:
        raise CertificateInvalid(
            f"The certificate {certificate_file.name} is not valid before {_day(leaf.not_valid_before_utc)}."
        )
    notices = _own_notices(chain, certificate_file, key_file, now)
    for notice in notices:
        log.warning(notice)
    return _facts(leaf, certificate_file, key_file, notices, self_signed=False)


def _own_chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path, "certificate"))
    except ValueError as error:
        raise CertificateInvalid(f"{path.name} holds no certificate in PEM form.", details=str(error)) from error


def _own_key(path: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path, "key"), None)
    except TypeError as error:  # "Password was not given but private key is encrypted"
        raise CertificateInvalid(
            f"The key in {path.name} is encrypted: nobody is there to type its password, so store it without one."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateInvalid(f"{path.name} holds no private key in PEM form.", details=str(error)) from error
    if not isinstance(key, PrivateKey):
        raise CertificateInvalid(f"The key in {path.name} is of a kind that TLS does not use.")
    return key


def _own_notices(
    chain: list[x509.Certificate], certificate_file: Path, key_file: Path, now: datetime
) -> tuple[str, ...]:
    leaf, notices = chain[0], []
    if leaf.not_valid_after_utc - now < RENEW_BEFORE:
        notices.append(f"The certificate {certificate_file.name} ends on {_day(leaf.not_valid_after_utc)}.")
    if not _is_private(key_file):
        notices.append(f"Others on this computer may read the key in {key_file.name}.")
    if not all(_issued(child, issuer) for child, issuer in pairwise(chain)):
        notices.append(f"The certificates in {certificate_file.name} do not follow each other as a chain.")
    return tuple(notices)


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CertificateInvalid(f"The {what} {path} cannot be read: {reason}.", details=str(error)) from error


# -- facts -----------------------------------------------------------------------------------------------------------
def _facts(
    certificate: x509.Certificate,
    certificate_file: Path,
    key_file: Path,
    notices: tuple[str, ...],
    *,
    self_signed: bool,
) -> ServerCertificate:
    return ServerCertificate(
        certificate_file,
        key_file,
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        _pin(certificate.public_key()),
        certificate.not_valid_after_utc,
        self_signed,
        notices,
    )


def _pin(key: CertificatePublicKeyTypes) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256//" + base64.b64encode(hashlib.sha256(der).digest()).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _is_private(path: Path) -> bool:
    """Whether only its owner may read the file. Windows keeps that elsewhere: a data folder there is its owner's."""
    return os.name != "posix" or not path.stat().st_mode & _READABLE_BY_OTHERS


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
