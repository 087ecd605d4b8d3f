"""Certificates of one cluster, made with openssl. Every key is readable by its owner only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.command import run, which

_CONFIG: Final = """\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
"""
_DAYS: Final = "365"
_CURVE: Final = "ec_paramgen_curve:prime256v1"


@dataclass(frozen=True)
class KeyPair:
    """A key and its certificate, both as PEM files."""

    key: Path
    certificate: Path


def obstacle() -> str | None:
    """Say what is missing to make certificates, if anything is."""
    return None if which("openssl") else "openssl 3 is needed to make the cluster's certificates"


@dataclass(frozen=True)
class Authority:
    """A certificate authority of one cluster, in a folder of its own."""

    folder: Path

    @property
    def pair(self) -> KeyPair:
        """The authority's own key and certificate."""
        return self._pair("ca")

    def create(self) -> None:
        """Make the folder and the authority's key."""
        self.folder.mkdir(parents=True, mode=0o700)
        (self.folder / "openssl.cnf").write_text(_CONFIG)
        self._request(self.pair, "/CN=moorage-cluster", "-extensions", "ca")

    def issue(self, name: str, subject: str, addresses: Sequence[str] = ()) -> KeyPair:
        """Make a key and a certificate signed by the authority.

        Args:
            name: How its files are called.
            subject: `/O=GROUP/CN=USER`, which is how Kubernetes reads a client's certificate.
            addresses: What a server answers on: `DNS:localhost`, `IP:127.0.0.1`.
        """
        pair = self._pair(name)
        names = ["-addext", "subjectAltName=" + ",".join(addresses)] if addresses else []
        signer = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)]
        self._request(pair, subject, "-extensions", "leaf", *names, *signer)
        return pair

    def signing_key(self, name: str) -> tuple[Path, Path]:
        """Make the key that signs service-account tokens; returns the private and the public half."""
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", _CURVE, "-out", private])
        run(["openssl", "pkey", "-in", private, "-pubout", "-out", public])
        private.chmod(0o600)
        return private, public

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.key", self.folder / f"{name}.crt")

    def _request(self, pair: KeyPair, subject: str, *options: str) -> None:
        what = ["-config", str(self.folder / "openssl.cnf"), "-days", _DAYS, "-subj", subject, *options]
        where = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", _CURVE, "-nodes", *what, *where])
