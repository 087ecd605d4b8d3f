"""What is deleted leaves nothing behind, also where no operator runs; models outlive the release, and nothing else."""

import time
from contextlib import contextmanager

import pytest

from e2e.kit import Kit
from e2e.stack import ROOT, SYSTEM_NAMESPACE

RELEASE = ("moorage", f"--namespace={SYSTEM_NAMESPACE}")
OURS = (
    "deployments,replicasets,pods,services,endpointslices,serviceaccounts,roles,rolebindings,poddisruptionbudgets,"
    "leases,secrets,configmaps"
)
EVERY_NAMESPACE_HAS = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
GONE = "gone"


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.apply((kit.directory / "chat.yaml").read_text().replace("name: chat", f"name: {GONE}"))
    kit.wait_ready("chat")
    kit.wait_ready(GONE)


@pytest.fixture(scope="module")
def other(kit):
    """Another namespace, with a model that serves."""
    other = Kit(kit.stack, f"{kit.namespace}-other", kit.directory)
    other.create_namespace()
    other.apply("chat.yaml")
    other.wait_ready("chat")
    return other


def test_a_namespace_with_a_model_goes(other, bar):
    asked = time.time()
    other.delete_namespace()
    bar("R17", namespace_s=time.time() - asked)


def test_a_model_goes_in_the_middle_of_its_rollout(kit, chat, bar):
    kit.patch("chat", model={"contextLength": 512})
    kit.eventually(lambda: kit.status("chat")["revision"], lambda revision: revision == {"stable": 1, "candidate": 2})
    delete(kit, "chat", bar, operator="runs")


def test_models_outlive_the_release_and_nothing_else_does(kit, chat, bar, tmp_path):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    pods = chat_pods(kit)
    address = kit.get("service", "chat")["spec"]["clusterIP"]
    with kit.load("chat", workers=1, pause=0.1, at=f"http://{address}/v1") as load:
        load.goes_on(1)
        asked = time.time()
        with uninstalled(kit, tmp_path / "values.json"):
            kit.eventually(lambda: left_of_the_release(kit), lambda left: left == [])
            bar("R17", uninstall_s=time.time() - asked, orphans=0)
            load.goes_on(2)
            delete(kit, GONE, bar, operator="none")
        load.goes_on(1)
    assert load.failures() == []

    # The next installation takes it up as it is.
    kit.patch("chat", model={"servedName": "harbour"})
    kit.wait_ready("chat")
    assert kit.ask(f"{kit.namespace}/harbour", stream=True)["pieces"]
    assert chat_pods(kit) == pods


def delete(kit, name, bar, operator):
    """Delete a model, and wait until all that was made for it is gone."""
    asked = time.time()
    kit.kubectl("delete", "llmdeployment", name)
    returned = time.time()
    kit.eventually(lambda: [child for child in kit.children() if f"/{name}" in child], lambda left: left == [])
    bar("R17", operator=operator, delete_s=returned - asked, children_gone_s=time.time() - asked)


@contextmanager
def uninstalled(kit, values):
    """Without the release, which is installed again in the end as it was."""
    values.write_text(kit.stack.helm("get", "values", *RELEASE, "--output=json"))
    kit.stack.helm("uninstall", *RELEASE)
    try:
        yield
    finally:
        name, namespace = RELEASE
        chart = str(ROOT / "charts" / "moorage")
        install = ("upgrade", "--install", name, chart, namespace, f"--values={values}", "--wait", "--timeout=3m")
        kit.stack.helm(*install)


def left_of_the_release(kit):
    """Everything that is in the release's namespace, and what was installed for the whole cluster."""
    here = kit.stack.kubectl("get", OURS, f"--namespace={SYSTEM_NAMESPACE}", "--output=name").split()
    selector = "--selector=app.kubernetes.io/instance=moorage"
    everywhere = kit.stack.kubectl("get", "clusterroles,clusterrolebindings", selector, "--output=name").split()
    return [one for one in (*here, *everywhere) if one not in EVERY_NAMESPACE_HAS]


def chat_pods(kit):
    """The pods by uid, and how often their containers were started anew."""
    pods = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
