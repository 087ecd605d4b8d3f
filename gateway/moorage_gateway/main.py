"""`moorage-gateway`: the command."""

import logging
import sys

import uvloop
from kubernetes.aio.config import ConfigException

from moorage_gateway import server, settings


def main() -> None:
    """Run a gateway until it is told to stop; exits 0 once drained, 1 when it finds no API server."""
    chosen = settings.parse()
    logging.basicConfig(
        level=chosen.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        uvloop.run(server.serve(chosen))
    except ConfigException as error:
        sys.exit(f"moorage-gateway: no API server: {error}. Give --kubeconfig, or run inside a cluster.")
