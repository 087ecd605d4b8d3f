"""The chart as real Helm renders it and a real API server takes it."""

import json
import re
import subprocess

import pytest
import yaml

from moorage_api import names
from moorage_gateway.settings import Settings
from moorage_operator.plan.metrics_api import NAME, OF_PODS, OF_THE_GROUP
from moorage_operator.shell.registrar import INSTALLATION

KUBE_VERSION = "1.34.0"


@pytest.fixture(scope="session")
def helm(plane, checkout):
    def template(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [str(plane.binaries / "helm"), "template", "moorage", str(checkout / "charts/moorage")]
        options = ["--namespace=moorage-system", f"--kube-version={KUBE_VERSION}", *arguments]
        return subprocess.run([*program, *options], capture_output=True, text=True, check=False, timeout=60)

    return template


@pytest.fixture(scope="session")
def render(helm):
    def objects(*arguments: str) -> list[dict]:
        done = helm(*arguments)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return objects


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
def test_the_api_server_takes_every_object(render, kubectl, namespace, scope):
    objects = render(f"--set=scope={scope}", f"--namespace={namespace}", "--set=crds.install=false")
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", stdin=json.dumps(everything))


def test_every_pod_passes_pod_security_restricted(render, kubectl, namespace):
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    deployments = [o for o in render(f"--namespace={namespace}") if o["kind"] == "Deployment"]
    assert len(deployments) == 2
    for deployment in deployments:
        name = deployment["spec"]["template"]["spec"]["serviceAccountName"]
        kubectl("create", "serviceaccount", name, f"--namespace={namespace}")
        metadata = {"name": deployment["metadata"]["name"], "namespace": namespace}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": deployment["spec"]["template"]["spec"]}
        kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_namespaced_installation_asks_for_nothing_of_the_cluster_but_the_definitions(render):
    kinds = {o["kind"] for o in render("--set=scope=namespace")}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
def test_no_rule_grants_more_than_it_names(render, scope):
    rules = [rule for o in render(f"--set=scope={scope}") for rule in o.get("rules", [])]
    assert rules
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not {pair for pair in granted if "*" in pair}
    assert not {resource for resource, _ in granted if resource.startswith(("secrets", "pods/"))}
    assert not {verb for _, verb in granted if verb in ("escalate", "bind", "impersonate", "deletecollection")}
    assert not {verb for resource, verb in granted if resource == "llmdeployments" and verb not in _READING}
    assert not granted & {("services", "delete"), ("networkpolicies", "delete")}, "those go with their owners"


_READING = ("get", "list", "watch")


@pytest.mark.parametrize(("scope", "verbs"), [("cluster", ["list"]), ("namespace", [])])
def test_nodes_are_looked_at_only_where_the_whole_cluster_is(render, scope, verbs):
    rules = [rule for o in render(f"--set=scope={scope}") for rule in o.get("rules", [])]
    assert [verb for rule in rules if "nodes" in rule["resources"] for verb in rule["verbs"]] == verbs


def test_prices_are_where_moor_looks_for_them(render):
    assert not [o for o in render() if o["kind"] == "ConfigMap"]
    prices = '{"currency": "EUR", "perHour": {"nvidia.com/gpu": 1.5}}'
    (found,) = (o for o in render(f"--set-json=prices={prices}") if o["kind"] == "ConfigMap")
    assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "moorage-prices"
    assert yaml.safe_load(found["data"]["prices.yaml"]) == json.loads(prices)


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_every_rule_says_its_reason(checkout, component):
    lines = (checkout / f"charts/moorage/templates/{component}/rbac.yaml").read_text().splitlines()
    rules = [number for number, line in enumerate(lines) if re.match(r"\s*- apiGroups:", line)]
    assert rules
    assert all(lines[number - 1].lstrip().startswith("# ") for number in rules)


def test_definitions_are_left_out_when_told_so_and_kept_on_removal(render):
    definition = next(o for o in render() if o["kind"] == "CustomResourceDefinition")
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [o for o in render("--set=crds.install=false") if o["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("operator.replica=2", "additional properties 'replica' not allowed"),
        ("scope=everything", "value must be one of 'cluster', 'namespace'"),
        ("gateway.drainSeconds=-1", "minimum: got -1, want 0"),
        ("gateway.hold.requests=0", "minimum: got 0, want 1"),
        ("runtime.image.pullPolicy=Always", "additional properties 'pullPolicy' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm, value, words):
    done = helm(f"--set={value}")
    assert done.returncode != 0
    assert words in done.stderr


def test_the_operator_finds_the_gateways_by_their_label_and_they_know_their_names(render):
    (gateway,) = [o for o in render() if o["kind"] == "Deployment" and o["metadata"]["name"] == names.GATEWAY]
    template = gateway["spec"]["template"]
    assert template["metadata"]["labels"][names.NAME_LABEL] == names.GATEWAY
    (container,) = template["spec"]["containers"]
    assert {"name": "internal", "containerPort": names.GATEWAY_INTERNAL_PORT} in container["ports"]
    named = {each["name"]: each.get("valueFrom") for each in container["env"]}
    assert named["MOORAGE_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def _operator_rules(render, scope):
    (role,) = [
        o
        for o in render(f"--set=scope={scope}")
        if o["kind"] in {"Role", "ClusterRole"} and o["metadata"]["name"] == "moorage-operator"
    ]
    return role["rules"]


def test_registrations_are_narrowed_to_their_names_and_to_the_whole_cluster(render):
    rules = [rule for rule in _operator_rules(render, "cluster") if "apiservices" in rule["resources"]]
    written = [rule["resourceNames"] for rule in rules if "patch" in rule["verbs"]]
    assert written == [[NAME]]
    read = {name for rule in rules if "get" in rule["verbs"] for name in rule["resourceNames"]}
    assert read == {*OF_THE_GROUP, OF_PODS}
    (roles,) = [rule for rule in _operator_rules(render, "cluster") if "clusterroles" in rule["resources"]]
    assert (roles["resourceNames"], roles["verbs"]) == ([INSTALLATION], ["get"])
    resources = {resource for rule in _operator_rules(render, "namespace") for resource in rule["resources"]}
    assert not resources & {"apiservices", "clusterroles"}
    assert "horizontalpodautoscalers" in resources


def _gateways(objects):
    (found,) = [o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == names.GATEWAY]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return container


def test_autoscalers_find_the_gateways_where_the_operator_registers_them(render):
    objects = render("--set=scope=cluster")
    container = _gateways(objects)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["metrics"] == names.GATEWAY_METRICS_PORT
    assert {"name": "MOORAGE_METRICS_PORT", "value": str(names.GATEWAY_METRICS_PORT)} in container["env"]
    assert {"name": "MOORAGE_NAMESPACE", "value": "moorage-system"} in container["env"]
    (service,) = [o for o in objects if o["kind"] == "Service" and o["metadata"]["name"] == names.GATEWAY_METRICS]
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 443, "targetPort": "metrics"}]
    assert service["spec"]["selector"][names.NAME_LABEL] == names.GATEWAY


def test_in_one_namespace_there_are_no_figures_for_autoscalers(render):
    objects = render("--set=scope=namespace")
    container = _gateways(objects)
    assert "metrics" not in {each["name"] for each in container["ports"]}
    assert "MOORAGE_METRICS_PORT" not in {each["name"] for each in container["env"]}
    assert names.GATEWAY_METRICS not in {o["metadata"]["name"] for o in objects}
    assert {o["metadata"]["namespace"] for o in objects if "namespace" in o["metadata"]} == {"moorage-system"}


def test_only_pods_reach_the_gateways_figures_and_requests(render):
    (policy,) = [o for o in render() if o["kind"] == "NetworkPolicy"]
    rules = [(each.get("from"), [port["port"] for port in each["ports"]]) for each in policy["spec"]["ingress"]]
    assert rules == [(None, ["http"]), (None, ["metrics"]), ([{"namespaceSelector": {}}], ["internal"])]
    assert not [o for o in render("--set=gateway.networkPolicy=false") if o["kind"] == "NetworkPolicy"]


def test_the_gateway_may_learn_how_to_tell_the_api_server_from_others_and_nothing_else_there(
    render, kubectl, namespace
):
    rights = [
        o
        for o in render(f"--namespace={namespace}")
        if o["metadata"]["name"].endswith(("moorage-gateway", "moorage-gateway-metrics")) and "rbac" in o["apiVersion"]
    ]
    assert len(rights) == 3
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": rights})
    kubectl("apply", "--filename=-", stdin=everything)
    try:
        for verb in ("list", "watch"):
            assert _may(kubectl, namespace, verb, "configmaps/extension-apiserver-authentication", "kube-system")
            assert not _may(kubectl, namespace, verb, "configmaps", "kube-system")
            assert _may(kubectl, namespace, verb, "pods", namespace)
    finally:
        kubectl("delete", "--filename=-", stdin=everything)


def _may(kubectl, namespace, verb, what, where):
    user = f"--as=system:serviceaccount:{namespace}:moorage-gateway"
    return kubectl.run("auth", "can-i", verb, what, f"--namespace={where}", user).stdout.strip() == "yes"


def test_how_long_requests_wait_is_the_charts_to_say(render):
    given = {each["name"]: each.get("value") for each in _gateways(render())["env"]}
    base = Settings()
    assert float(given["MOORAGE_HOLD_REQUESTS"]) == base.hold_requests
    assert float(given["MOORAGE_HOLD_SECONDS"]) == base.hold_seconds
    assert float(given["MOORAGE_HOLD_STREAM_SECONDS"]) == base.hold_stream_seconds
    assert float(given["MOORAGE_HOLD_MIB"]) == base.hold_mib
    given = {each["name"]: each.get("value") for each in _gateways(render("--set=gateway.hold.requests=10000"))["env"]}
    assert given["MOORAGE_HOLD_REQUESTS"] == "10000"
