"""The smallest client of an API server: enough to ask whether it is ready and what a node says."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from e2e.cluster.pki import KeyPair

_TIMEOUT: Final = 3.0


@dataclass(frozen=True)
class Api:
    """An API server and the certificate to ask it with."""

    url: str
    authority: Path
    user: KeyPair

    def ready(self) -> bool:
        """Whether it answers and all its own checks pass."""
        try:
            return self._get("/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def read(self, path: str) -> Any:
        """Return one object, or None when it is not there or the server does not answer."""
        try:
            status, body = self._get(path)
        except OSError:
            return None
        return json.loads(body) if status == http.HTTPStatus.OK else None

    def _get(self, path: str) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.user.certificate, self.user.key)
        address = urlsplit(self.url).netloc
        connection = http.client.HTTPSConnection(address, timeout=_TIMEOUT, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:  # cut off in mid-answer: as good as no answer
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
