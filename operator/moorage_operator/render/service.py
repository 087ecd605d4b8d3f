"""The Service: one stable address of the model inside the cluster, which follows the stable revision."""

from typing import Any

from moorage_api import names
from moorage_operator.manifest import Manifest
from moorage_operator.render.context import Owner
from moorage_operator.render.sharding import leader_labels


def service(owner: Owner, stable: int, template: Manifest) -> dict[str, Any]:
    """Port 80 of `<name>` -> the pods of revision `stable`, made of `template`, that answer requests (rank 0)."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.name, owner.labels()),
        "spec": {
            "selector": {**owner.labels(stable), **leader_labels(template)},
            "ports": [
                {"name": names.HTTP_PORT_NAME, "port": 80, "targetPort": names.HTTP_PORT_NAME, "protocol": "TCP"}
            ],
        },
    }
