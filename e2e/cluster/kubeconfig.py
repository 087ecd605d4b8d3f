"""Client configurations. They are written as JSON, which every reader of YAML takes."""

import base64
import json
from pathlib import Path

from e2e.cluster.pki import KeyPair


def write(path: Path, server: str, authority: Path, user: KeyPair, cluster: str = "moorage") -> Path:
    """Write a configuration with everything in it, so that it can be copied elsewhere; readable by its owner only.

    Args:
        path: The file to write.
        server: Address of the API server, `https://127.0.0.1:6443`.
        authority: The certificate that signed the server's.
        user: Key and certificate of the client.
        cluster: How cluster, user and context are called in it.
    """
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _data(authority)}},
        ],
        "users": [
            {
                "name": cluster,
                "user": {
                    "client-certificate-data": _data(user.certificate),
                    "client-key-data": _data(user.key),
                },
            },
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "current-context": cluster,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
