"""Names: what resolves to what."""

import pytest

from moorage_gateway import table
from moorage_gateway.table import Ambiguous, Revision, Target

SERVING = Revision(1, 100, (Target("uid", "pod", "10.0.0.1:8000"),))


def test_a_model_has_its_full_and_its_plain_name(make_model):
    chat = make_model(SERVING)
    routes = table.build([chat])
    assert routes.resolve("team-a/chat") is chat
    assert routes.resolve("chat") is chat
    assert routes.resolve("Chat") is None
    assert routes.resolve("team-b/chat") is None


def test_a_plain_name_of_two_namespaces_stands_for_neither(make_model):
    one, two = make_model(SERVING, namespace="b"), make_model(SERVING, namespace="a", created=9)
    routes = table.build([one, two])
    assert routes.resolve("chat") == Ambiguous(("a/chat", "b/chat"))
    assert routes.resolve("a/chat") is two
    assert routes.resolve("b/chat") is one
    assert routes.shortest_name(one) == "b/chat"


@pytest.mark.parametrize("in_order", [True, False])
def test_in_one_namespace_the_older_keeps_the_name(make_model, in_order):
    older = make_model(SERVING, created=1, reason="Older")
    newer = make_model(SERVING, created=2, reason="Newer")
    routes = table.build([older, newer] if in_order else [newer, older])
    assert routes.resolve("chat") is older
    assert routes.resolve("team-a/chat") is older


def test_a_plain_name_never_shadows_a_full_one(make_model):
    honest = make_model(SERVING, namespace="bank", name="chat")
    posing = make_model(SERVING, namespace="evil", name="bank/chat")
    routes = table.build([posing, honest])
    assert routes.resolve("bank/chat") is honest
    assert routes.shortest_name(posing) == "evil/bank/chat"


def test_targets_are_those_of_every_revision(make_model):
    other = Revision(2, 0, (Target("uid-2", "pod-2", "10.0.0.2:8000"),))
    routes = table.build([make_model(SERVING, other), make_model(name="empty")])
    assert [target.key for target in routes.targets()] == ["uid", "uid-2"]
