"""The serving certificate for custom metrics: signed by itself, made at the start, its key never written to a disk."""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moorage_api import names

_LASTS: Final = timedelta(days=365)
_SLACK: Final = timedelta(hours=1)
"""It is good since before it was made: the API server's clock may be behind this machine's."""
RENEW_SECONDS: Final = 300 * 24 * 3600
"""After this long there should be another."""


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A key and its certificate, as PEM. Not to be printed."""

    key: str
    certificate: str


def self_signed(dns_names: Sequence[str]) -> Pair:
    """Make a certificate for these DNS names, and its key. It signs nothing but itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.GATEWAY_METRICS)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - _SLACK, now + _LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_signs_handshakes(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in dns_names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(secret.decode(), made.public_bytes(Encoding.PEM).decode())


def _signs_handshakes() -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    return x509.KeyUsage(
        digital_signature=True, crl_sign=False, encipher_only=False, decipher_only=False, **dict.fromkeys(others, False)
    )


def context(pair: Pair, authorities: str) -> ssl.SSLContext:
    """A server's side of TLS, that asks clients for a certificate signed by one of the authorities.

    A client may do without: the application decides what it gets. One with another's certificate gets no connection.

    Raises:
        ssl.SSLError: the authorities are no certificates.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as the API server does: an authority need not be a root
    tls.load_verify_locations(cadata=authorities)
    # Each connection shows its certificate anew: what is resumed was verified by whatever counted then.
    tls.options |= ssl.OP_NO_TICKET
    tls.num_tickets = 0
    with _in_memory(pair.key + pair.certificate) as path:
        tls.load_cert_chain(path)
    return tls


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A file that is on no disk; `ssl` takes keys from files only."""
    file = os.memfd_create("serving-certificate")
    try:
        os.write(file, text.encode())
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
