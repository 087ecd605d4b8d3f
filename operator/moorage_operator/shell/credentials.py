"""Who the operator is to the API server: one source of credentials for kopf and for our own client."""

import base64
import dataclasses
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import kopf

from moorage_operator.cluster.client import Connection


class NoCredentialsError(Exception):
    """There is neither a service account nor a kubeconfig."""


def login(environment: Mapping[str, str]) -> kopf.ConnectionInfo:
    """The service account of the pod, else the kubeconfig. Read anew at each call, since tokens rotate.

    Raises:
        NoCredentialsError: there is neither.
    """
    settings = kopf.OperatorSettings()
    in_cluster = kopf.login_with_service_account(settings=settings)
    if in_cluster is not None:
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if host:  # works also while the cluster's DNS does not
            server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
            return dataclasses.replace(in_cluster, server=server)
        return in_cluster
    from_file = kopf.login_with_kubeconfig(settings=settings)
    if from_file is None:
        raise NoCredentialsError("found neither a service account of a pod nor a kubeconfig: set KUBECONFIG")
    return from_file


def connector(environment: Mapping[str, str]) -> Callable[[], Connection]:
    """How our client gets its connection."""
    return lambda: connection(login(environment))


def connection(info: kopf.ConnectionInfo) -> Connection:
    """The same credentials in our client's form."""
    tls = _tls(info) if info.server.startswith("https:") else None
    return Connection(info.server.rstrip("/"), tls, info.as_http_headers())


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext:
    authority = _bytes(info.ca_data)
    context = ssl.create_default_context(
        cafile=os.fspath(info.ca_path) if info.ca_path else None,
        cadata=authority.decode() if authority else None,
    )
    if info.insecure:  # the kubeconfig's own `insecure-skip-tls-verify`
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with _certificate(info) as paths:
        if paths is not None:
            context.load_cert_chain(*paths)
    return context


@contextmanager
def _certificate(info: kopf.ConnectionInfo) -> Iterator[tuple[str, str] | None]:
    """The client's certificate and key as files, which is the only form that the ssl module reads."""
    if info.certificate_path and info.private_key_path:
        yield os.fsdecode(info.certificate_path), os.fsdecode(info.private_key_path)
        return
    certificate, key = _bytes(info.certificate_data), _bytes(info.private_key_data)
    if certificate is None or key is None:
        yield None
        return
    with TemporaryDirectory() as folder:
        paths = Path(folder, "tls.crt"), Path(folder, "tls.key")
        for path, content in zip(paths, (certificate, key), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(content)
        yield str(paths[0]), str(paths[1])


def _bytes(data: str | bytes | None) -> bytes | None:
    """PEM from what a kubeconfig holds: base64 of PEM."""
    if not data:
        return None
    raw = data.encode() if isinstance(data, str) else data
    return raw if raw.lstrip().startswith(b"-----BEGIN") else base64.b64decode(raw)
