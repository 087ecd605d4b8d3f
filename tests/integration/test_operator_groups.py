"""Replicas of several pods, with the chart's rights, StatefulSets and their controller; the test is the kubelet."""

import json

import pytest

from tests.integration.operator_kit import READY, is_ready
from tests.integration.team_kit import settled

TWO = {"tensorParallel": 2, "pods": 2}
OURS = "deployments,statefulsets,services,networkpolicies,poddisruptionbudgets,controllerrevisions"


@pytest.fixture
def proxy(chart_proxy):
    return chart_proxy


def ours(team):
    """The children that the operator makes, without what the StatefulSets' controller makes with their labels."""
    items = team.get(OURS, "--selector=app.kubernetes.io/managed-by=moorage")["items"]
    mine = [one for one in items if one["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"]
    return sorted((one["kind"], one["metadata"]["name"]) for one in mine)


def pods(team):
    """Name -> pod."""
    return {pod["metadata"]["name"]: pod for pod in team.kubelet.pods()}


def groups(team):
    return [name for kind, name in ours(team) if kind == "StatefulSet"]


def message(team):
    return next(one["message"] for one in team.status()["conditions"] if one["type"] == "Ready")


def test_each_replica_is_a_statefulset_and_serves_when_all_of_its_pods_are_ready(operator, team):
    team.apply(replicas=2, sharding=TWO)
    made = team.eventually(lambda: pods(team), lambda found: len(found) == 4)
    assert sorted(made) == ["chat-r1-0-0", "chat-r1-0-1", "chat-r1-1-0", "chat-r1-1-1"]
    for name, pod in made.items():
        labels = pod["metadata"]["labels"]
        place = [labels[key] for key in ("moorage.dev/group", "apps.kubernetes.io/pod-index")]
        assert name == f"chat-r1-{place[0]}-{place[1]}"
        assert labels["moorage.dev/group-size"] == "2"
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (name, "chat-ranks")
    assert ours(team) == [
        ("ControllerRevision", "chat-r1"),
        ("NetworkPolicy", "chat-ranks"),
        ("PodDisruptionBudget", "chat"),
        ("Service", "chat"),
        ("Service", "chat-ranks"),
        ("StatefulSet", "chat-r1-0"),
        ("StatefulSet", "chat-r1-1"),
    ]
    for name in ("chat-r1-0-0", "chat-r1-0-1", "chat-r1-1-0"):
        team.kubelet.report(made[name], READY)
    status = team.eventually(team.status, lambda seen: seen.get("readyReplicas") == 1)
    assert (status["replicas"], status["ready"], team.reason()) == (2, "1/2", "Scaling")
    status = team.becomes("Serving")
    assert (status["readyReplicas"], status["revisions"][0]["ready"]) == (2, 2)
    selector = team.get("service", "chat")["spec"]["selector"]
    assert (selector["apps.kubernetes.io/pod-index"], selector["moorage.dev/revision"]) == ("0", "1")
    assert "moorage.dev/rank" not in selector


def test_the_first_rank_has_a_name_before_it_is_ready(operator, team):
    """What CoreDNS makes names of. Source: EndpointSlice, `hostname`; Service, `publishNotReadyAddresses`."""
    team.apply(sharding=TWO)
    made = team.eventually(lambda: pods(team), lambda found: len(found) == 2)
    team.kubelet.report(made["chat-r1-0-0"], {"podIP": "10.244.7.1", "podIPs": [{"ip": "10.244.7.1"}]})

    def names():
        slices = team.get("endpointslices", "--selector=kubernetes.io/service-name=chat-ranks")["items"]
        return [one.get("hostname") for each in slices for one in each["endpoints"] or ()]

    team.eventually(names, lambda found: found == ["chat-r1-0-0"])
    server = made["chat-r1-0-1"]["spec"]["containers"][0]
    address = {one["name"]: one.get("value") for one in server["env"]}["LWS_LEADER_ADDRESS"]
    assert address == f"chat-r1-$(MOORAGE_GROUP)-0.chat-ranks.{team.namespace}.svc"


def test_resyncs_and_restarts_write_nothing(start_operator, team, proxy):
    first = start_operator(resync=0.5)
    team.eventually(first.leads, bool)
    team.apply(replicas=2, sharding=TWO)
    team.becomes("Serving")
    writes = settled(proxy, 2)
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
    before = first.metric(done)
    team.eventually(lambda: first.metric(done), lambda now: now >= before + 5)
    assert proxy.writes[writes:] == []
    assert first.terminate() == 0
    newer = start_operator(image="moorage/runtime:2", resync=0.5)
    team.eventually(lambda: newer.metric(done), lambda now: now >= 3)
    assert proxy.writes[writes:] == []


def test_kubectl_scale_makes_and_takes_whole_groups(operator, team):
    team.apply(sharding=TWO)
    team.becomes("Serving")
    for count in (3, 0, 1):
        team.kubectl("scale", "llmdep/chat", f"--replicas={count}", f"--namespace={team.namespace}")
        status = team.becomes("Serving" if count else "ScaledToZero")
        assert status["readyReplicas"] == status["replicas"] == count
        assert len(groups(team)) == count
        team.eventually(lambda: pods(team), lambda found, count=count: len(found) == 2 * count)
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{team.namespace}/llmdeployments/chat/scale"
    selector = json.loads(team.kubectl("get", "--raw", path))["status"]["selector"]
    selected = team.get("pods", f"--selector={selector}")["items"]
    assert len(selected) == 1, "an autoscaler that counts pods has to find one of each replica"


def test_a_pod_that_is_lost_takes_its_replica_out_until_it_is_back(operator, team):
    team.apply(replicas=2, sharding=TWO)
    team.becomes("Serving")
    lost = pods(team)["chat-r1-1-1"]["metadata"]["uid"]
    team.kubectl("delete", "pod", "chat-r1-1-1", "--grace-period=0", "--force", f"--namespace={team.namespace}")
    team.eventually(team.status, lambda seen: seen["readyReplicas"] == 1)
    again = team.eventually(lambda: pods(team).get("chat-r1-1-1"), lambda pod: pod and pod["metadata"]["uid"] != lost)
    assert not is_ready(again)
    assert groups(team) == ["chat-r1-0", "chat-r1-1"]
    assert team.becomes("Serving")["ready"] == "2/2"


def test_a_drain_takes_one_group_after_the_other_though_the_last_one_never_ends(operator, team):
    """Of a pod that was told to go the whole group goes and another comes at once. The pod never ends here, as on a
    lost node: no other one could have its name, and its StatefulSet is gone."""
    team.apply(replicas=2, sharding=TWO)
    team.becomes("Serving")
    drained = "chat-r1-1-1", "chat-r1-0-0"
    for one in drained:
        change(team, one, ["tests.moorage.dev/held"])
    team.eventually(lambda: evictable(team), lambda count: count == 1)
    assert evict(team, "chat-r1-1-1") == ""
    team.eventually(lambda: groups(team), lambda found: found == ["chat-r1-0", "chat-r1-2"])
    assert "violate the pod's disruption budget" in evict(team, "chat-r1-0-0"), "until another one is whole"
    assert team.becomes("Serving")["ready"] == "2/2"
    assert sorted(pods(team)) == ["chat-r1-0-0", "chat-r1-0-1", "chat-r1-2-0", "chat-r1-2-1"]
    team.eventually(lambda: evictable(team), lambda count: count == 1)
    assert evict(team, "chat-r1-0-0") == ""
    team.eventually(lambda: groups(team), lambda found: found == ["chat-r1-2", "chat-r1-3"])
    assert team.becomes("Serving")["ready"] == "2/2"
    for one in drained:
        change(team, one, None)


def change(team, pod, finalizers):
    merge = "--type=merge", f"--patch={json.dumps({'metadata': {'finalizers': finalizers}})}"
    team.kubectl("patch", "pod", pod, f"--namespace={team.namespace}", *merge)


def evict(team, pod):
    """As `kubectl drain` does it; why it is refused."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": team.namespace}}
    path = f"/api/v1/namespaces/{team.namespace}/pods/{pod}/eviction"
    return team.kubectl.run("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction)).stderr


def evictable(team):
    status = team.get("poddisruptionbudget", "chat")["status"]
    assert all(one["reason"] != "SyncFailed" for one in status.get("conditions", ())), status
    return status["disruptionsAllowed"]


def test_a_restart_is_made_with_other_groups(operator, team):
    team.apply(replicas=2, sharding=TWO)
    team.becomes("Serving")
    before = {pod["metadata"]["uid"] for pod in pods(team).values()}
    team.kubectl("annotate", "llmdep/chat", "moorage.dev/action=restart/r1", f"--namespace={team.namespace}")

    def replaced():
        team.kubelet.ready()
        return {pod["metadata"]["uid"] for pod in pods(team).values()}

    team.eventually(replaced, lambda now: len(now) == 4 and not before & now)
    status = team.becomes("Serving")
    assert status["revision"] == {"stable": 1}
    assert status["rollout"]["lastAction"] == "restart/r1"
    assert len(groups(team)) == 2


def test_to_one_pod_and_back_is_a_rollout_that_leaves_nothing_that_runs(operator, team):
    team.apply(sharding=TWO)
    team.becomes("Serving")
    team.apply(sharding={"tensorParallel": 2, "pods": 1})
    team.eventually(team.status, lambda seen: seen["revision"].get("candidate") == 2)
    team.becomes("Serving")
    alone = [("ControllerRevision", "chat-r1"), ("ControllerRevision", "chat-r2")]
    alone += [
        ("Deployment", "chat-r2"),
        ("NetworkPolicy", "chat-ranks"),
        ("Service", "chat"),
        ("Service", "chat-ranks"),
    ]
    team.eventually(lambda: ours(team), lambda found: found == alone)
    assert team.get("service", "chat")["spec"]["selector"]["moorage.dev/rank"] == "0"
    team.apply(sharding=TWO)
    team.eventually(lambda: groups(team), lambda found: found == ["chat-r1-0"])
    status = team.becomes("Serving")
    assert status["revision"] == {"stable": 1}, "it means the same as the first one"


def test_deletion_leaves_nothing(operator, team):
    team.apply(replicas=2, sharding=TWO)
    team.becomes("Serving")
    team.kubectl("delete", "llmdeployment", "chat", f"--namespace={team.namespace}")
    selected = f"{OURS},pods", "--selector=app.kubernetes.io/managed-by=moorage"
    team.eventually(lambda: team.get(*selected)["items"], lambda left: left == [])


def test_what_a_person_changes_of_a_group_is_mended(operator, team):
    team.apply(sharding=TWO)
    team.becomes("Serving")
    team.kubectl("scale", "statefulset/chat-r1-0", "--replicas=3", f"--namespace={team.namespace}")
    team.eventually(lambda: team.get("statefulset", "chat-r1-0")["spec"]["replicas"], lambda count: count == 2)
    team.kubectl("delete", "networkpolicy", "chat-ranks", f"--namespace={team.namespace}")
    team.eventually(lambda: ours(team), lambda found: ("NetworkPolicy", "chat-ranks") in found)
    team.kubectl("delete", "statefulset", "chat-r1-0", f"--namespace={team.namespace}")
    team.eventually(lambda: groups(team), bool)
    assert team.becomes("Serving")["ready"] == "1/1"


def test_a_quota_that_refuses_a_pod_of_a_group_is_named(operator, team):
    """A StatefulSet's status does not say it; its events do."""
    team.kubectl("create", "quota", "one", "--hard=pods=1", f"--namespace={team.namespace}")
    team.apply(sharding=TWO)
    team.eventually(team.reason, lambda reason: reason == "QuotaExceeded", 60)
    assert "exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1" in message(team)
    team.kubectl("delete", "quota", "one", f"--namespace={team.namespace}")
    team.becomes("Serving", seconds=90)
