"""The serving certificate for custom metrics: signed by itself, made at the start, its key never written to a disk.

By the `openssl` command: it comes with Debian's ca-certificates, and Python's own `ssl` makes no certificates.
"""

import os
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from moorage_api import names

_DAYS: Final = 365
_PATIENCE_SECONDS: Final = 60
RENEW_SECONDS: Final = 300 * 24 * 3600
"""After this long there should be another."""
_CONFIG: Final = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = leaf
[name]
CN = {name}
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


class CertificateError(Exception):
    """It could not be made; the message says why."""


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A key and its certificate, as PEM. Not to be printed."""

    key: str
    certificate: str


def self_signed(dns_names: Sequence[str]) -> Pair:
    """Make a certificate for these DNS names. Blocks for some milliseconds.

    Raises:
        CertificateError: there is no `openssl`, or it failed.
    """
    config = _CONFIG.format(name=names.GATEWAY_METRICS, names=",".join(f"DNS:{name}" for name in dns_names))
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256", "-days", str(_DAYS)]
    command = ["openssl", "req", "-x509", *what, "-config", "/dev/stdin"]  # which writes both parts to its output
    try:
        done = subprocess.run(  # noqa: S603 - nothing in it is anybody else's
            command, input=config, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CertificateError(f"openssl cannot be run: {error}") from error
    key, begin, rest = done.stdout.partition(_BEGIN)
    if done.returncode != 0 or not begin:
        raise CertificateError(f"openssl failed: {done.stderr.strip()[-300:]}")
    return Pair(key, begin + rest)


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
