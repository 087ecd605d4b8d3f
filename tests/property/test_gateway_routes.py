"""Whatever order events come in, the table is the one that a fresh list would give."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway.routes import Routes

NAMESPACES = ("a", "b")
NAMES = ("chat", "code")


def _deployment(namespace, name, served, weight):
    return {
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": f"2026-01-0{len(name)}T00:00:00Z"},
        "spec": {"model": {"servedName": served}},
        "status": {"revisions": [{"number": 1, "weight": 100 - weight}, {"number": 2, "weight": weight}]},
    }


def _pod(namespace, name, uid, revision, ready):
    labels = {"moorage.dev/deployment": name, "moorage.dev/revision": str(revision), "moorage.dev/rank": "0"}
    return {
        "metadata": {"namespace": namespace, "name": f"pod-{uid}", "uid": f"{namespace}-{uid}", "labels": labels},
        "status": {"podIP": f"10.0.0.{uid}", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def _member(namespace, name, index, revision, ready):
    """A pod of a replica over two pods."""
    labels = {
        "moorage.dev/deployment": name,
        "moorage.dev/revision": str(revision),
        "moorage.dev/group": "0",
        "moorage.dev/group-size": "2",
        "apps.kubernetes.io/pod-index": str(index),
    }
    uid = f"{name}-r{revision}-0-{index}"
    return {
        "metadata": {"namespace": namespace, "name": uid, "uid": f"{namespace}-{uid}", "labels": labels},
        "status": {"podIP": f"10.0.1.{index}", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


deployments = st.builds(
    _deployment,
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
    st.sampled_from((None, "chat", "smol")),
    st.integers(0, 100),
)
pods = st.builds(
    _pod,
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)
members = st.builds(
    _member,
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
    st.integers(0, 1),
    st.integers(1, 2),
    st.booleans(),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("deployments"), st.sampled_from(("put", "remove")), deployments),
        st.tuples(st.just("replicas"), st.sampled_from(("put", "remove")), st.one_of(pods, members)),
        st.tuples(st.just("turn"), st.none(), st.none()),
    ),
    max_size=30,
)


def _key(kind, obj):
    meta = obj["metadata"]
    return (meta["namespace"], meta["name"]) if kind == "deployments" else meta["uid"]


async def _follow(steps):
    """Feed every change to one store, and the survivors to a fresh one; both tables."""
    followed, truth = Routes(), {"deployments": {}, "replicas": {}}
    followed.deployments.replace([])
    followed.replicas.replace([])
    for kind, action, obj in steps:
        if kind == "turn":
            await asyncio.sleep(0)
            continue
        getattr(getattr(followed, kind), action)(obj)
        if action == "put":
            truth[kind][_key(kind, obj)] = obj
        else:
            truth[kind].pop(_key(kind, obj), None)
    fresh = Routes()
    for kind, found in truth.items():
        getattr(fresh, kind).replace(list(found.values()))
    await asyncio.sleep(0)
    assert followed.synced
    assert fresh.synced
    return followed, fresh, truth


@settings(max_examples=300)
@given(changes)
def test_following_events_ends_where_a_list_begins(steps):
    followed, fresh, _ = asyncio.run(_follow(steps))
    assert followed.table == fresh.table


@settings(max_examples=100)
@given(changes, st.lists(pods, max_size=6))
def test_a_list_replaces_all_that_came_before(steps, listed):
    async def relist():
        followed, _, truth = await _follow(steps)
        unique = list({_key("replicas", pod): pod for pod in listed}.values())
        followed.replicas.replace(unique)
        fresh = Routes()
        fresh.replicas.replace(unique)
        fresh.deployments.replace(list(truth["deployments"].values()))
        await asyncio.sleep(0)
        return followed.table, fresh.table

    table, expected = asyncio.run(relist())
    assert table == expected
