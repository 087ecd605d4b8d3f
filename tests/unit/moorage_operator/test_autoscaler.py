"""The HorizontalPodAutoscaler: what it is, when there is one, and what ScalingActive says of it."""

from datetime import timedelta

import pytest

from moorage_api.autoscaling import Autoscaling
from moorage_operator.cluster.compare import includes
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.autoscaler import BEHAVIOR, autoscaler
from moorage_operator.render.context import Owner

OWNER = Owner("chat", "team", "u1")
TARGETS = [{"metric": "RequestsInFlight", "averageValue": 8}, {"metric": "CPUUtilization", "averageValue": "80.9"}]
SCALED = {"minReplicas": 1, "maxReplicas": 6, "targets": TARGETS}
OURS = MetricsApi(served=True)
FOREIGN = "v1beta1.custom.metrics.k8s.io is served by monitoring/adapter"
FOUND = {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "…"}
NO_METRIC = "the HPA was unable to compute the replica count: no figure"


def rendered(**changes):
    return autoscaler(OWNER, Autoscaling.model_validate({**SCALED, **changes}))


def missing(make, ago, kind="ScalingActive"):
    since = f"{make.now - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%SZ}"
    why = {"reason": "FailedGetObjectMetric", "message": NO_METRIC}
    return {"type": kind, "status": "False", "lastTransitionTime": since, **why}


def up_for(make, seconds):
    since = f"{make.now - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    return make.pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": since}])


def live(*conditions, wanted=1, figures=(), controller="kube-controller-manager", **changes):
    """The autoscaler as the API server has it."""
    status = {"desiredReplicas": wanted, "conditions": list(conditions), "currentMetrics": list(figures)}
    made = rendered(**changes)
    made["metadata"]["managedFields"] = [{"manager": controller, "subresource": "status"}]
    return {**made, "status": status}


def figure(name, value):
    return {"type": "Object", "object": {"metric": {"name": name}, "current": {"averageValue": value}}}


def snapshot(deployment, *children, metrics=OURS, now=None, make=None):
    kinds = {}
    for child in children:
        kinds.setdefault(child["kind"], []).append(child)
    by_kind = {kind: tuple(those) for kind, those in kinds.items()}
    return Snapshot(deployment, by_kind, now or make.now, metrics=metrics)


@pytest.fixture
def look(make):
    """`look(*children, metrics, **spec)` -> the plan for a deployment with autoscaling."""

    def decide(*children, metrics=OURS, status=None, managers=(), annotations=None, **spec):
        deployment = make.deployment(status, **{"autoscaling": SCALED, **spec})
        more = {"managedFields": list(managers), "annotations": annotations or {}}
        deployment["metadata"] = {**deployment["metadata"], **more}
        return plan(snapshot(deployment, *children, metrics=metrics, make=make), make.context)

    return decide


def condition(decided, kind="ScalingActive"):
    return next((one for one in decided.status["conditions"] if one["type"] == kind), None)


def said(decided):
    found = condition(decided)
    return found["status"], found["reason"]


def applied(decided):
    return [one.manifest for one in decided.applies if one.manifest["kind"] == "HorizontalPodAutoscaler"]


def deleted(decided):
    return [one.manifest["kind"] for one in decided.deletes]


# What it is.


def test_it_scales_the_deployment_itself_by_the_sum_over_its_replicas():
    manifest = rendered(behavior={"scaleDown": {"stabilizationWindowSeconds": 60, "policies": []}})
    reference = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "name": "chat"}
    first, second = manifest["spec"].pop("metrics")
    assert manifest["spec"] == {
        "scaleTargetRef": reference,
        "minReplicas": 1,
        "maxReplicas": 6,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    }
    assert first["object"] == {
        "describedObject": reference,
        "metric": {"name": "RequestsInFlight"},
        "target": {"type": "AverageValue", "averageValue": "8"},
    }
    assert second["object"]["metric"] == {"name": "CPUUtilization"}
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert manifest["metadata"]["annotations"] == {BEHAVIOR: '{"scaleDown": {"stabilizationWindowSeconds": 60}}'}


def test_a_behavior_that_is_not_wanted_any_more_is_a_difference():
    before, after = rendered(behavior={"scaleDown": {"selectPolicy": "Disabled"}}), rendered()
    assert includes(before, before)
    assert not includes(before, after), "the API server would leave no trace of it"
    assert includes(after, after)


def test_it_never_counts_from_zero():
    assert rendered(minReplicas=0, idleAfter="10m")["spec"]["minReplicas"] == 1


def test_by_the_cpu_alone_it_has_one_metric_or_is_not_there():
    wish = Autoscaling.model_validate(SCALED)
    (metric,) = autoscaler(OWNER, wish, by_cpu_alone=True)["spec"]["metrics"]
    target = {"type": "Utilization", "averageUtilization": 80}
    assert metric == {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    assert autoscaler(OWNER, Autoscaling.model_validate({**SCALED, "targets": TARGETS[:1]}), by_cpu_alone=True) is None


# When there is one.


def test_with_autoscaling_it_is_applied_after_everything_that_starts_replicas(look):
    kinds = [one.manifest["kind"] for one in look().applies]
    assert kinds == ["ControllerRevision", "Deployment", "Service", "HorizontalPodAutoscaler"]


def test_without_autoscaling_there_is_none_and_the_condition_is_not_there(look):
    decided = look(live(FOUND), autoscaling=None)
    assert (applied(decided), deleted(decided)) == ([], ["HorizontalPodAutoscaler"])
    assert condition(decided) is None


@pytest.mark.parametrize("how", [{"metrics": None}, {"model": {"source": "nowhere://"}}])
def test_while_nobody_knows_what_is_there_stays(look, how):
    decided = look(live(FOUND), **how)
    assert (applied(decided), deleted(decided)) == ([], [])


def test_the_condition_stays_while_spec_cannot_be_used(look):
    before = {"conditions": look(live(FOUND)).status["conditions"]}
    decided = look(live(FOUND), status=before, model={"source": "nowhere://"})
    assert said(decided) == ("True", "MetricsFound")


def test_where_somebody_else_serves_metrics_it_goes_by_the_cpu_or_goes(look):
    by_cpu = look(live(FOUND), metrics=MetricsApi(owner=FOREIGN, cpu=True))
    (manifest,) = applied(by_cpu)
    assert [one["type"] for one in manifest["spec"]["metrics"]] == ["Resource"]
    assert said(by_cpu) == ("False", "MetricsOwnedByAnother")
    assert condition(by_cpu)["message"].startswith(f"{FOREIGN}. Only CPUUtilization is scaled by")
    without = look(live(FOUND), metrics=MetricsApi(owner=FOREIGN))
    assert (applied(without), deleted(without)) == ([], ["HorizontalPodAutoscaler"])
    assert "Nothing is scaled by, since there is no metrics-server" in condition(without)["message"]
    no_cpu = look(metrics=MetricsApi(owner=FOREIGN, cpu=True), autoscaling={**SCALED, "targets": TARGETS[:1]})
    assert applied(no_cpu) == []
    assert "no target is CPUUtilization" in condition(no_cpu)["message"]


def test_in_one_namespace_there_is_none_and_it_is_said(look):
    decided = look(live(FOUND), metrics=MetricsApi(cluster=False))
    assert (applied(decided), deleted(decided)) == ([], ["HorizontalPodAutoscaler"])
    assert said(decided) == ("False", "MetricsNeedCluster")


def test_without_ready_gateways_it_stays_and_holds_the_number(look):
    decided = look(live(FOUND), metrics=MetricsApi())
    assert len(applied(decided)) == 1
    assert deleted(decided) == []
    assert said(decided) == ("False", "MetricsUnserved")


def test_the_first_object_with_autoscaling_waits_for_the_registration_a_moment(look):
    assert said(look(metrics=MetricsApi(at_hand=True))) == ("Unknown", "MetricsAwaited")


# What is said of it.


def test_it_works_when_it_says_so(look):
    assert said(look()) == ("Unknown", "MetricsAwaited")
    assert said(look(live())) == ("Unknown", "MetricsAwaited")
    decided = look(live(FOUND))
    assert said(decided) == ("True", "MetricsFound")
    words = "Between 1 and 6 replicas by RequestsInFlight 8, CPUUtilization 80.9 per replica."
    assert condition(decided)["message"] == words


def limit(make, reason, ago):
    since = f"{make.now - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%SZ}"
    return {"type": "ScalingLimited", "status": str(reason != "DesiredWithinRange"), "reason": reason} | {
        "lastTransitionTime": since
    }


def test_that_more_would_be_needed_is_told_once_it_is_so_for_a_minute_and_as_long_as_that_after_it(look, make):
    """A load that swings around what maxReplicas can bear would change the status at each look of the autoscaler."""
    words = "More than maxReplicas (6) would be needed."
    early = look(live(FOUND, limit(make, "TooManyReplicas", 40)))
    assert words not in condition(early)["message"]
    assert early.requeue_after == 20
    late = look(live(FOUND, limit(make, "TooManyReplicas", 60)))
    assert condition(late)["message"].endswith(words)
    before = {"conditions": late.status["conditions"]}
    dips = look(live(FOUND, limit(make, "DesiredWithinRange", 40)), status=before)
    assert condition(dips)["message"].endswith(words)
    assert dips.requeue_after == 20
    over = look(live(FOUND, limit(make, "DesiredWithinRange", 60)), status=before)
    assert words not in condition(over)["message"]


def test_a_missing_metric_is_told_once_a_replica_could_have_told_it_for_a_minute(look, make):
    starts = look(live(missing(make, 600)))
    assert said(starts) == ("Unknown", "MetricsAwaited")
    up = up_for(make, 600)
    early = look(up, live(missing(make, 40)))
    assert said(early) == ("Unknown", "MetricsAwaited")
    assert early.requeue_after == 20
    woken = look(up_for(make, 50), live(missing(make, 600)))
    assert (said(woken), woken.requeue_after) == (("Unknown", "MetricsAwaited"), 10)
    late = look(up, live(missing(make, 60)))
    assert said(late) == ("False", "MetricsMissing")
    assert condition(late)["message"].startswith("The HPA was unable to compute the replica count: no figure. ")


def test_an_autoscaler_that_may_not_write_the_number_lacks_no_metric(look, make):
    unable = look(up_for(make, 600), live(missing(make, 60, "AbleToScale"), FOUND))
    assert said(unable) == ("False", "ScalingRefused")
    before = {"conditions": unable.status["conditions"]}
    again = look(up_for(make, 600), live(missing(make, 1, "AbleToScale"), FOUND), status=before)
    assert said(again) == ("False", "ScalingRefused")


def test_somebody_elses_autoscaler_of_the_name_holds_up_nothing_but_ours(look):
    metadata = {"name": "chat", "namespace": "team", "uid": "x", "resourceVersion": "4"}
    theirs = {"kind": "HorizontalPodAutoscaler", "metadata": metadata}
    decided = look(theirs)
    assert [one.manifest["kind"] for one in decided.applies] == ["ControllerRevision", "Deployment", "Service"]
    assert said(decided) == ("False", "ReplicasOwnedByTwo")
    assert condition(decided)["message"].startswith("HorizontalPodAutoscaler chat exists and belongs to somebody else.")
    assert condition(decided, "Ready")["reason"] != "WorkloadRefused"
    assert (decided.in_the_way, decided.requeue_after) == ((theirs,), 30)
    free = look(theirs, autoscaling=None)
    assert (free.in_the_way, deleted(free), condition(free)) == ((), [], None)


@pytest.mark.parametrize("metrics", [OURS, MetricsApi(), MetricsApi(owner=FOREIGN)])
def test_what_the_budget_cuts_is_told_whatever_else_there_is_to_tell(look, metrics):
    wish = {**SCALED, "budget": {"accelerators": 4}}
    decided = look(metrics=metrics, autoscaling=wish, accelerator={"count": 2}, replicas=6)
    assert condition(decided)["message"].endswith(" The budget of 4 accelerators allows 2 of 6 replicas.")


def test_one_that_was_well_a_moment_ago_is_not_called_into_question(look, make):
    before = {"conditions": look(live(FOUND)).status["conditions"]}
    assert said(look(up_for(make, 600), live(missing(make, 40)), status=before)) == ("True", "MetricsFound")
    assert said(look(metrics=None, status=before)) == ("True", "MetricsFound"), "nor by an operator that just began"


def test_a_model_that_a_person_stopped_is_not_scaled(look):
    decided = look(live(FOUND), replicas=0)
    assert said(decided) == ("False", "ScalingDisabled")
    assert "kubectl scale llmdep/chat --replicas=1" in condition(decided)["message"]


APPLIED = {"manager": "argocd-controller", "operation": "Apply"}
BY_HPA = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}
BY_HAND = {"manager": "kubectl", "operation": "Update", "subresource": "scale"}
CREATED = {"manager": "kubectl-create", "operation": "Update"}


@pytest.mark.parametrize(
    ("managers", "words"),
    [
        ([APPLIED, BY_HPA], "Argocd-controller applies spec.replicas. "),
        ([BY_HAND], "Kubectl scaled it last. "),
        ([{**APPLIED, "fieldsV1": {"f:spec": {"f:model": {}}}}], "Somebody scaled it last. "),
        ([BY_HPA], ""),
        ([CREATED], ""),
    ],
)
def test_two_who_write_the_number_are_told_of(look, managers, words):
    decided = look(live(FOUND, wanted=3), managers=managers, replicas=2)
    assert said(decided) == (("False", "ReplicasOwnedByTwo") if words else ("True", "MetricsFound"))
    assert condition(decided)["message"].startswith(words)


def test_that_a_number_is_applied_is_told_until_the_next_sync_though_the_autoscaler_took_it_over(look, make):
    """The API server forgets who applied a field that somebody else has written since."""
    told = look(live(FOUND, wanted=2), managers=[APPLIED], replicas=1).status["conditions"]
    since = f"{make.now - timedelta(seconds=540):%Y-%m-%dT%H:%M:%SZ}"
    before = {"conditions": [{**one, "lastTransitionTime": since} for one in told]}
    held = look(live(FOUND, wanted=2), managers=[BY_HPA], replicas=2, status=before)
    assert said(held) == ("False", "ReplicasOwnedByTwo")
    assert "Remove replicas from what is applied" in condition(held)["message"]
    assert held.requeue_after == 60
    since = f"{make.now - timedelta(seconds=600):%Y-%m-%dT%H:%M:%SZ}"
    before = {"conditions": [{**one, "lastTransitionTime": since} for one in told]}
    assert said(look(live(FOUND, wanted=2), managers=[BY_HPA], replicas=2, status=before)) == ("True", "MetricsFound")


def test_that_a_person_scaled_once_is_not_told_after_the_autoscaler_wrote_again(look):
    before = {"conditions": look(live(FOUND, wanted=3), managers=[BY_HAND], replicas=2).status["conditions"]}
    assert said(look(live(FOUND, wanted=3), managers=[BY_HPA], replicas=3, status=before)) == ("True", "MetricsFound")


def test_a_number_that_kubectl_applies_is_told_of(look):
    key = "kubectl.kubernetes.io/last-applied-configuration"
    assert said(look(live(FOUND), annotations={key: '{"spec": {"replicas": 2}}'})) == ("False", "ReplicasOwnedByTwo")
    assert said(look(live(FOUND), annotations={key: '{"spec": {"model": {}}}'})) == ("True", "MetricsFound")
    assert said(look(live(FOUND), annotations={key: "no json"})) == ("True", "MetricsFound")


@pytest.mark.parametrize("managers", [[BY_HAND], []])
def test_a_person_who_scales_while_the_autoscaler_measures_nothing_is_no_second_one(look, make, managers):
    blind = look(up_for(make, 600), live(missing(make, 600), wanted=3), managers=managers, replicas=2)
    assert said(blind) == ("False", "MetricsMissing")


def test_a_person_who_scales_to_what_the_autoscaler_wants_is_no_second_one(look):
    assert said(look(live(FOUND, wanted=2), managers=[BY_HAND], replicas=2)) == ("True", "MetricsFound")


def test_two_autoscalers_of_one_deployment_are_told_of(look):
    ambiguous = {"type": "ScalingActive", "status": "False", "reason": "AmbiguousSelector", "message": "several HPAs"}
    decided = look(live(ambiguous))
    assert said(decided) == ("False", "ReplicasOwnedByTwo")
    assert "several HPAs" in condition(decided)["message"]


# Why there are so many.


@pytest.fixture
def scale(make):
    """`scale(autoscaler, managers)` -> the decision when 3 replicas are wanted instead of 1."""

    def decide(*autoscalers, managers=(), autoscaling=SCALED):
        deployment = make.deployment(autoscaling=autoscaling)
        pod = make.ready()
        settled = plan(running(make, deployment, pod), make.context).status
        more = {**deployment, "status": settled, "spec": {**deployment["spec"], "replicas": 3}}
        more["metadata"] = {**more["metadata"], "managedFields": list(managers)}
        decided = plan(running(make, more, pod, *autoscalers), make.context)
        (found,) = [one for one in decided.status["decisions"] if one["kind"] == "Scale"]
        return found, decided

    return decide


def running(make, deployment, *children):
    """With the record and the workload that the plan makes for one replica, and these children."""
    one = {**deployment, "spec": {**deployment["spec"], "replicas": 1}}
    first = snapshot(one, *[child for child in children if child["kind"] == "Pod"], make=make)
    made = [apply.manifest for apply in plan(first, make.context).applies]
    kept = [each for each in made if each["kind"] in {"ControllerRevision", "Deployment"}]
    born = {"creationTimestamp": "2026-01-01T11:00:00Z"}
    kept = [{**each, "metadata": {**each["metadata"], **born}} for each in kept]
    return snapshot(deployment, *kept, *children, make=make)


def test_the_autoscalers_figures_are_the_reason(scale):
    figures = [figure("RequestsInFlight", "18500m"), figure("CPUUtilization", "40")]
    found, decided = scale(live(FOUND, wanted=3, figures=figures), managers=[BY_HPA])
    assert (found["from"], found["to"]) == ("r1: 1", "r1: 3")
    expected = "HPA: RequestsInFlight 18.5 over 8 per replica, CPUUtilization 40 under 80.9 per replica"
    assert found["reason"].endswith(f"; {expected}")
    assert not decided.unripe


def test_where_the_controllers_are_another_binary_the_autoscaler_is_known_by_its_status(look, scale):
    ours, by_k3s = {"wanted": 3, "controller": "k3s"}, [{**BY_HPA, "manager": "k3s"}]
    assert scale(live(FOUND, **ours), managers=by_k3s)[0]["reason"].endswith("; HPA: 3 wanted")
    assert scale(live(FOUND, **{**ours, "wanted": 1}), managers=by_k3s)[1].unripe
    assert said(look(live(FOUND, **ours), managers=by_k3s, replicas=2)) == ("True", "MetricsFound")


@pytest.mark.parametrize(
    ("managers", "words"), [([BY_HPA], "an HPA scaled it to 3"), ([], "spec.replicas is 3")], ids=["told", "untold"]
)
def test_the_figures_are_waited_for_since_they_come_a_moment_after_the_number(scale, managers, words):
    found, decided = scale(live(FOUND, wanted=1), managers=managers)
    assert decided.unripe
    assert found["reason"].endswith(f"; {words}")
    assert not scale(live(FOUND, wanted=3), managers=managers)[1].unripe


@pytest.mark.parametrize(
    ("managers", "words"),
    [([BY_HAND], "kubectl scaled it to 3"), ([APPLIED], "argocd-controller applied replicas 3")],
)
def test_whoever_else_wrote_the_number_is_named(scale, managers, words):
    assert scale(managers=managers, autoscaling=None)[0]["reason"].endswith(f"; {words}")


def test_where_nobody_is_known_the_number_is_what_it_is(scale):
    assert scale(autoscaling=None)[0]["reason"].endswith("; spec.replicas is 3")


def test_a_cut_is_told_with_the_decision_and_after_it(make):
    wish = {**SCALED, "budget": {"accelerators": 4}}
    deployment = make.deployment(autoscaling=wish, accelerator={"count": 2}, replicas=6)
    before = {"ready": "1/1", "revisions": [{"number": 1, "replicas": 1, "weight": 100}], "revision": {"stable": 1}}
    decided = plan(running(make, {**deployment, "status": before}, make.ready(), live(FOUND, wanted=6)), make.context)
    allowed = "the budget of 4 accelerators allows 2 of 6 replicas"
    (found,) = [one for one in decided.status["decisions"] if one["kind"] == "Scale"]
    assert found["to"] == "r1: 2"
    assert found["reason"].endswith(f"; HPA: 6 wanted; {allowed}")
    assert condition(decided)["message"].endswith(f" The{allowed[3:]}.")
    assert decided.status["ready"].endswith("/2")
