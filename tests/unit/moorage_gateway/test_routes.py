"""What the table keeps when the API server tells less than before."""

import asyncio

import pytest

from moorage_gateway.routes import Routes

BORN, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def deployment(born=BORN, **weights):
    rows = [{"number": int(name[1:]), "weight": weight} for name, weight in weights.items()]
    status = {"revisions": rows} if rows else {}
    return {"metadata": {"namespace": "team", "name": "chat", "creationTimestamp": born}, "spec": {}, "status": status}


async def weights_after(*told, listed=False):
    """The weights in the table once it has been told all of that, one after the other."""
    routes = Routes()
    for each in told:
        if listed:
            routes.deployments.replace([each] if each else [])
        elif each:
            routes.deployments.put(each)
        else:
            routes.deployments.remove(told[0])
    routes.replicas.replace([])
    await asyncio.sleep(0)
    model = routes.table.full["team/chat"]
    return {revision.number: revision.weight for revision in model.revisions}


@pytest.mark.parametrize("listed", [False, True])
async def test_a_lost_status_changes_no_share(listed):
    """Or a canary of a few percent, which may be broken, would get everything until the operator has written again."""
    assert await weights_after(deployment(r1=95, r2=5), deployment(), listed=listed) == {1: 95, 2: 5}
    assert await weights_after(deployment(r1=95, r2=5), deployment(), deployment(r1=100), listed=listed) == {1: 100}


@pytest.mark.parametrize("listed", [False, True])
async def test_another_object_of_the_same_name_inherits_nothing(listed):
    assert await weights_after(deployment(r1=100), deployment(LATER), listed=listed) == {}
    assert await weights_after(deployment(r1=100), None, deployment(), listed=listed) == {}
