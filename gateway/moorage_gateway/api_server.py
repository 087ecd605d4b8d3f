"""The connection to the API server: the official client finds it and its credentials, and keeps those fresh."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio import client, config

# The official client's configuration part carries no types.
_load_kubeconfig: Final[Callable[..., Awaitable[None]]] = config.load_kube_config
_load_service_account: Final[Callable[..., None]] = config.load_incluster_config


class ApiServer:
    """GET on the API server, with its credentials."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._configuration = configuration
        self._client: Any = client.ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> "ApiServer":
        """Find the server: the kubeconfig given, else the pod's service account, else the user's kubeconfig.

        Raises:
            kubernetes.aio.config.ConfigException: there is none of them, or it is broken.
        """
        configuration = client.Configuration()
        if kubeconfig is None:
            try:
                _load_service_account(configuration)
            except config.ConfigException:
                kubeconfig = Path(config.KUBE_CONFIG_DEFAULT_LOCATION).expanduser()  # noqa: ASYNC240 - nothing runs yet
            else:
                return cls(configuration)
        if not kubeconfig.is_file():
            raise config.ConfigException(f"no service account is mounted, and there is no file {kubeconfig}")
        try:
            await _load_kubeconfig(str(kubeconfig), client_configuration=configuration)
        except yaml.YAMLError as error:
            raise config.ConfigException(f"{kubeconfig} is not YAML: {error}") from error
        return cls(configuration)

    @asynccontextmanager
    async def get(
        self, path: str, query: dict[str, str], limit: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the answer to a GET; the caller reads it.

        Raises:
            aiohttp.ClientError: the server cannot be reached, or the connection breaks.
            TimeoutError: as `limit` says.
            kubernetes.aio.config.ConfigException: a rotated token cannot be read just now.
        """
        headers = {"accept": "application/json"}
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token is not None:
            headers["authorization"] = token
        url = f"{self._configuration.host}{path}?{urlencode(query)}"
        answer = await self._client.rest_client.request("GET", url, headers=headers, _request_timeout=limit)
        try:
            yield answer.response
        finally:
            answer.response.close()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()
