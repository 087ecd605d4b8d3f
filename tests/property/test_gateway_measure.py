"""Whatever gateways tell, in whatever order: a figure is the same, and never below what is known to be."""

import math

from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway import balance, measure
from moorage_gateway.measure import Told, Unknown
from moorage_gateway.table import Model, Revision, Target, serving

UIDS = [f"uid-{n}" for n in range(12)]

pods = st.fixed_dictionaries(
    {},
    optional={
        "running": st.integers(0, 100),
        "waiting": st.integers(0, 100),
        "kvCacheUtilization": st.floats(0, 1),
        "cpuUtilization": st.floats(0, 1),
        "tokensPerSecond": st.floats(0, 1e4),
        "gpu": st.fixed_dictionaries(
            {
                "available": st.booleans(),
                "devices": st.lists(st.fixed_dictionaries({"utilization": st.integers(0, 100)})),
            }
        ),
    },
)
told = st.builds(
    Told,
    st.integers(0, 100),
    st.dictionaries(st.integers(1, 2), st.integers(0, 50)),
    st.dictionaries(st.sampled_from(UIDS), pods),
    st.dictionaries(st.sampled_from(UIDS), st.floats(0, 10)),
)
draws = st.floats(0, 1, exclude_max=True)
metrics = st.sampled_from(sorted(measure.METRICS))


@st.composite
def models(draw):
    count = draw(st.integers(0, len(UIDS)))
    split = draw(st.integers(0, count))
    weights = draw(st.sampled_from([(100, 0), (0, 100), (50, 50), (0, 0)]))
    targets = tuple(Target(uid, uid, "10.0.0.1:8000") for uid in UIDS[:count])
    revisions = Revision(1, weights[0], targets[:split]), Revision(2, weights[1], targets[split:])
    return Model("team-a", "chat", "chat", 0, draw(st.sampled_from(["Serving", "ScaledToZero"])), "", revisions)


def _serving(model):
    return [target.key for _, targets in serving(model.revisions) for target in targets]


def _last(metric, uid, gateways):
    """What was heard last of a replica."""
    heard = {}
    for each in gateways:
        if (value := measure.METRICS[metric](each.pods.get(uid, {}))) is not None:
            heard.setdefault(each.heard.get(uid, -math.inf), []).append(value)
    return max(heard[max(heard)]) if heard else None


silent = st.lists(st.one_of(st.none(), told), max_size=2)


@given(metrics, models(), st.lists(told, max_size=4), st.randoms(use_true_random=False), silent)
def test_every_gateway_gives_the_same_answer(metric, model, gateways, order, silent):
    found = measure.figure(metric, model, gateways, silent=silent)
    shuffled = list(gateways)
    order.shuffle(shuffled)
    assert measure.figure(metric, model, shuffled, silent=silent) == found


@given(models(), draws, draws)
def test_who_gets_requests_is_measured(model, revision_draw, tie_draw):
    choice = balance.choose(model.revisions, {}, revision_draw=revision_draw, tie_draw=tie_draw)
    assert (choice is None) is (not _serving(model))
    if choice is not None:
        busy = {uid: {"running": 7 if uid == choice.target.key else 0, "waiting": 0} for uid in _serving(model)}
        assert measure.figure("RequestsInFlight", model, [Told(0, {}, busy)]) == 7


@given(metrics, models(), st.lists(told, max_size=4), silent)
def test_nothing_is_told_as_zero_where_no_replica_says_so_unless_the_model_sleeps(metric, model, gateways, silent):
    if not _serving(model) and model.reason != "ScaledToZero":
        assert measure.figure(metric, model, gateways, silent=silent) != 0


@given(metrics, models(), st.lists(told, max_size=4))
def test_no_more_than_a_fifth_is_ever_guessed_and_what_is_known_always_counts(metric, model, gateways):
    values = {}
    for uid in _serving(model):
        if (value := _last(metric, uid, gateways)) is not None:
            values[uid] = value
    replicas = len(_serving(model))
    found = measure.figure(metric, model, gateways)
    if 5 * (replicas - len(values)) > replicas:
        assert isinstance(found, Unknown)
    elif isinstance(found, Unknown):
        assert replicas == 0
    else:
        held = sum(each.held for each in gateways) if metric in {"RequestsInFlight", "QueueDepth"} else 0
        assert found >= sum(values.values()) + held - 1e-6


@given(st.floats(0, 1e9))
def test_a_quantity_is_within_half_a_thousandth(value):
    text = measure.quantity(value)
    back = int(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
    assert abs(back - value) <= 0.0005 + value * 1e-12
