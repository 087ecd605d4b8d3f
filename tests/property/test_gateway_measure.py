"""Whatever gateways tell, in whatever order: a figure is the same, and never below what is known to be."""

from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway import measure
from moorage_gateway.measure import Told, Unknown
from moorage_gateway.table import Model, Revision, Target

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
)
metrics = st.sampled_from(sorted(measure.METRICS))


@st.composite
def models(draw):
    count = draw(st.integers(0, len(UIDS)))
    split = draw(st.integers(0, count))
    weights = draw(st.sampled_from([(100, 0), (0, 100), (50, 50), (0, 0)]))
    targets = tuple(Target(uid, uid, "10.0.0.1:8000") for uid in UIDS[:count])
    revisions = Revision(1, weights[0], targets[:split]), Revision(2, weights[1], targets[split:])
    return Model("team-a", "chat", "chat", 0, "Serving", "", revisions)


def _serving(model):
    weighted = [revision for revision in model.revisions if revision.weight] or model.revisions
    return [target.key for revision in weighted for target in revision.targets]


@given(metrics, models(), st.lists(told, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_every_gateway_gives_the_same_answer(metric, model, gateways, order, complete):
    found = measure.figure(metric, model, gateways, complete=complete)
    shuffled = list(gateways)
    order.shuffle(shuffled)
    assert measure.figure(metric, model, shuffled, complete=complete) == found


@given(metrics, models(), st.lists(told, max_size=4))
def test_no_more_than_a_fifth_is_ever_guessed_and_what_is_known_always_counts(metric, model, gateways):
    values = {}
    for uid in _serving(model):
        heard = [value for each in gateways if (value := measure.METRICS[metric](each.pods.get(uid, {}))) is not None]
        if heard:
            values[uid] = max(heard)
    replicas = len(_serving(model))
    found = measure.figure(metric, model, gateways, complete=True)
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
