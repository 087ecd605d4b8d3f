"""Snapshot, plan, execute, one round after the other, against an API server that keeps what it is given."""

import itertools

import pytest

from moorage_operator.cluster.client import NotFoundError
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key
from moorage_operator.shell.reconcile import Reconciler

CHAT = Key("team", "chat")
SERVICE = "/api/v1/namespaces/team/services/chat"


class ApiServer:
    """Objects by path; each write makes the next version."""

    def __init__(self):
        self.objects = {}
        self._versions = itertools.count(100)

    async def get(self, path, **_):
        if path not in self.objects:
            raise NotFoundError(404, "not found", path)
        return self.objects[path]

    async def apply(self, path, body):
        version = str(next(self._versions))
        path, of = path.removesuffix("/status"), self.objects.get(path.removesuffix("/status"), {})
        born = {"creationTimestamp": "2026-01-01T11:00:00Z", "uid": f"u{version}"}
        metadata = {**born, **of.get("metadata", {}), **body["metadata"], "resourceVersion": version}
        self.objects[path] = {**of, **body, "metadata": metadata}
        return self.objects[path]


class Events:
    async def tell(self, *_):
        pass


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def store(make, server):
    store = Store()
    deployment = make.deployment()
    deployment["metadata"]["resourceVersion"] = "1"
    server.objects["/apis/moorage.dev/v1alpha1/namespaces/team/llmdeployments/chat"] = deployment
    store.put(deployment)
    return store


@pytest.fixture
def reconciler(make, server, store):
    return Reconciler(store, Writer(server, store), Events(), make.context, lambda: make.now)


def ready(store):
    conditions = store.get("LLMDeployment", "team", "chat")["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Ready")


async def test_it_goes_on_once_a_stranger_with_the_name_that_it_needs_is_gone(reconciler, server, store):
    metadata = {"name": "chat", "namespace": "team", "uid": "x", "resourceVersion": "4"}
    server.objects[SERVICE] = stranger = {"kind": "Service", "apiVersion": "v1", "metadata": metadata}
    store.put_foreign(CHAT, stranger)
    while (wait := await reconciler.reconcile(CHAT)) == 0:
        pass
    assert wait == 30
    assert "Service chat exists and belongs to somebody else" in ready(store)["message"]

    del server.objects[SERVICE]
    assert await reconciler.reconcile(CHAT) == 0, "no watch tells of it: it has to be looked for"
    await reconciler.reconcile(CHAT)
    assert server.objects[SERVICE]["spec"]["selector"]["moorage.dev/deployment"] == "chat"
