"""What must be there when an LLMDeployment is at rest, said without the operator's own code."""

import json
import re
import time
from collections import defaultdict

from e2e.waiting import eventually
from tests.integration.api_kit import CHILDREN, rests
from tests.integration.world_kit import BASE

REVISION = "moorage.dev/revision"
SERVER_SIDE = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def at_rest(world, wanted, seconds=240):
    """Wait until everything is as the specs in `wanted` (by name) ask for; returns how long that took."""
    began = time.monotonic()
    eventually(lambda: amiss(world, wanted), lambda found: found == [], seconds)
    return time.monotonic() - began


def amiss(world, wanted):
    """What is not as the specs in `wanted` (by name) ask for; empty at rest. Reads each kind once."""
    if under_way := [name for name in wanted if not is_over(world.sight.latest.get(name))]:
        return [f"{name}: under way" for name in under_way]
    objects = {one["metadata"]["name"]: one for one in world.items("llmdeployments")}
    family = defaultdict(lambda: {plural: [] for plural in CHILDREN})
    for plural in CHILDREN:
        for child in world.items(plural, ""):
            if (name := child["metadata"].get("labels", {}).get("moorage.dev/deployment")) is not None:
                family[name][plural].append(child)
    found = [f"{name}: {what}" for name in wanted for what in _amiss(objects.get(name), wanted[name], family[name])]
    return [*found, *(f"{name}: left over" for name in {*objects, *family} - set(wanted))]


def is_over(one):
    """Whether it says so itself: what is said may be wrong, but nothing has to be read before."""
    return one is not None and rests(one) and len(one["status"]["revisions"]) == 1


def _amiss(one, spec, children):
    if one is None:
        return ["not there"]
    spec = {**BASE, "replicas": 1, **spec}
    number = str(one.get("status", {}).get("revision", {}).get("stable"))
    facts = {
        **_of_workloads(children["deployments"], number, spec),
        **_of_pointers(children, number, spec),
        **_of_record(children["controllerrevisions"], number, spec),
        **_of_pods(children["pods"], number, spec),
        **_of_status(one, number, spec),
        "owners": all(_owner(each) == one["metadata"]["uid"] for kind in CHILDREN[:-1] for each in children[kind]),
    }
    return [what for what, good in facts.items() if not good]


def _owner(child):
    return next(owner["uid"] for owner in child["metadata"]["ownerReferences"] if owner["controller"])


def _of_workloads(workloads, number, spec):
    """One; or none, where nothing was ever to run."""
    numbers = [each["metadata"]["labels"][REVISION] for each in workloads]
    fewest = [number] if spec["replicas"] else []
    return {
        f"Deployments {numbers}": numbers in ([number], fewest),
        "replicas": all(each["spec"]["replicas"] == spec["replicas"] for each in workloads),
        "template": all(_runs(each["spec"]["template"], spec["engine"]) for each in workloads),
    }


def _runs(template, engine):
    container = template["spec"]["containers"][0]
    env = {each["name"]: each.get("value", "") for each in container.get("env", ())}
    wanted = {each["name"]: each["value"] for each in engine.get("env", ())}
    return container["image"] == engine["image"] and env | wanted == env


def _of_pointers(children, number, spec):
    selectors = [service["spec"]["selector"][REVISION] for service in children["services"]]
    budgets = [each["spec"]["selector"]["matchLabels"][REVISION] for each in children["poddisruptionbudgets"]]
    return {"Service": selectors == [number], "budget": budgets == ([number] if spec["replicas"] > 1 else [])}


def _of_record(records, number, spec):
    roles = {each["metadata"]["labels"][REVISION]: each["metadata"]["labels"]["moorage.dev/role"] for each in records}
    images = {each["metadata"]["labels"][REVISION]: each["data"]["spec"]["engine"]["image"] for each in records}
    return {
        f"roles {roles}": {each for each, role in roles.items() if role == "stable"} == {number},
        "candidates": "candidate" not in roles.values(),
        "record": images.get(number) == spec["engine"]["image"],
        "numbers": len(roles) == len(records),
    }


def _of_pods(pods, number, spec):
    revisions = [pod["metadata"]["labels"][REVISION] for pod in pods]
    return {f"pods of {revisions}": revisions == [number] * spec["replicas"]}


def _of_status(one, number, spec):
    status = one.get("status", {})
    ready = next((each for each in status.get("conditions", ()) if each["type"] == "Ready"), {})
    rows = [(str(row["number"]), row["weight"]) for row in status.get("revisions", ())]
    return {
        "generation": status.get("observedGeneration") == one["metadata"]["generation"],
        f"Ready {ready.get('reason')}": ready.get("reason") == ("Serving" if spec["replicas"] else "ScaledToZero"),
        "candidate": "candidate" not in status.get("revision", {}),
        f"rows {rows}": rows == [(number, 100)],
        "ready": status.get("ready") == f"{spec['replicas']}/{spec['replicas']}",
    }


def made_of(name, children):
    """The children without what differs between two objects of the same spec: names, numbers, times, uids.

    Of the records only the one that serves: the others tell the way by which it came about.
    """
    serving = children["services"][0]["spec"]["selector"][REVISION]
    kinds = {plural: children[plural] for plural in ("deployments", "services", "poddisruptionbudgets")}
    records = [one for one in children["controllerrevisions"] if one["metadata"]["labels"][REVISION] == serving]
    kept = {plural: [_kept(one) for one in ones] for plural, ones in {**kinds, "records": records}.items()}
    text = json.dumps(kept, indent=1, sort_keys=True)
    text = re.sub(rf"\b{re.escape(name)}(-r{serving})?\b", lambda found: "NAME-rN" if found[1] else "NAME", text)
    return re.sub(rf'("{REVISION}": )"{serving}"|("revision": ){serving}\b', r'\1\2"N"', text)


def _kept(one):
    rest = {key: value for key, value in one.items() if key not in {"metadata", "status", "kind", "apiVersion"}}
    if "clusterIP" in rest.get("spec", {}):
        rest["spec"] = {key: value for key, value in rest["spec"].items() if key not in SERVER_SIDE}
    return {"labels": one["metadata"]["labels"], **rest}
