"""Whose the operator's Lease is: its service account's, so that it goes with the installation that it belongs to.

Helm removes what it installed; what the operator made itself would stay for ever.
"""

import base64
import json
from typing import Any

from moorage_operator.manifest import Manifest, dig


def owner(token: str | None, namespace: str) -> Manifest | None:
    """An owner reference to the service account that a token is of; None without one in that namespace.

    Source: KEP-1205 (bound service account tokens). Read, not verified: the API server judges the token, and whoever
    can forge our own can do worse than name a false owner.
    """
    claims = _claims(token or "")
    name, uid = (dig(claims, "kubernetes.io", "serviceaccount", key) for key in ("name", "uid"))
    if not name or not uid or dig(claims, "kubernetes.io", "namespace") != namespace:
        return None
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": name, "uid": uid}


def _claims(token: str) -> dict[str, Any]:
    """What a JSON Web Token says (RFC 7519); nothing where it is none."""
    _, _, rest = token.partition(".")
    payload, _, _ = rest.partition(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:  # neither base64 nor JSON
        return {}
    return claims if isinstance(claims, dict) else {}
