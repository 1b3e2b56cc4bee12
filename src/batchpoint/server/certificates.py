"""The certificates of a home: an authority of its own, and what it signs for the names that the server is reached by.

Keys and certificates lie in ``<home>/tls``, readable by their owner alone. Whoever trusts the authority's certificate
trusts this home's server; the authority's key never leaves the home.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""Every certificate is made for these."""

_AUTHORITY_TIME = timedelta(days=3650)
_SERVER_TIME = timedelta(days=397)
"""The longest that clients accept."""
_RENEWED_BEFORE = timedelta(days=30)
_SKEW = timedelta(days=1)
"""Certificates are valid from a day ago, so that a clock that is behind does not refuse them."""


class Certificates:
    """The certificates in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def authority(self) -> str:
        """The authority's certificate, as PEM."""
        return self._path("authority.pem").read_text()

    def prepare(self, names: Sequence[str], *, now: datetime | None = None) -> None:
        """Make what is missing, near its end, or not made for all of these names.

        Args:
            names: host names and addresses, besides those of this machine itself.
            now: the time, for tests.
        """
        now = now or datetime.now(UTC)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._ends_soon("authority", now):
            self._make_authority(now)
            self._path("server.pem").unlink(missing_ok=True)
        wanted = list(dict.fromkeys([*LOCAL_NAMES, *names]))
        if self._ends_soon("server", now) or not set(wanted) <= _names_of(self._certificate("server")):
            self._make_server(wanted, now)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let connections of this context show the server's certificate, those that begin from now on."""
        context.load_cert_chain(self._path("server.pem"), self._path("server.key"))

    def _ends_soon(self, name: str, now: datetime) -> bool:
        if not self._path(f"{name}.pem").exists() or not self._path(f"{name}.key").exists():
            return True
        return self._certificate(name).not_valid_after_utc - now < _RENEWED_BEFORE

    def _make_authority(self, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # The date tells an old authority from its successor in a bundle that holds both.
        subject = _name(f"Batchpoint {now:%Y-%m-%d}")
        made = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _AUTHORITY_TIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        self._store("authority", key, made.sign(key, hashes.SHA256()))

    def _make_server(self, names: Sequence[str], now: datetime) -> None:
        authority, key = self._certificate("authority"), ec.generate_private_key(ec.SECP256R1())
        signer = serialization.load_pem_private_key(self._path("authority.key").read_bytes(), password=None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        made = (
            x509.CertificateBuilder(authority.subject, _name(names[0]), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + _SERVER_TIME, authority.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        self._store("server", key, made.sign(signer, hashes.SHA256()))

    def _certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._path(f"{name}.pem").read_bytes())

    def _store(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self._write(f"{name}.key", pem)
        self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def _write(self, name: str, content: bytes) -> None:
        partial = self._path(f"{name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        partial.replace(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / name


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(item.value) for item in found}


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
