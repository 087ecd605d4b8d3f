"""Properties of the choice of a target, over every table that Hypothesis can think of."""

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from moorage_gateway.balance import choose
from moorage_gateway.table import Revision, Target

draws = st.floats(0, 1, exclude_max=True)


@st.composite
def model_revisions(draw):
    sizes = draw(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 4)), max_size=5))
    return tuple(
        Revision(number, weight, tuple(Target(f"r{number}-{n}", f"r{number}-{n}", "h:1") for n in range(count)))
        for number, (weight, count) in enumerate(sizes, start=1)
    )


@st.composite
def situations(draw):
    revisions = draw(model_revisions())
    keys = [target.key for revision in revisions for target in revision.targets]
    subset = st.sets(st.sampled_from(keys)) if keys else st.just(set())
    load = draw(st.dictionaries(st.sampled_from(keys), st.integers(0, 5))) if keys else {}
    return revisions, load, draw(subset), draw(subset)


def _revision_of(revisions, choice):
    return next(revision for revision in revisions if revision.number == choice.revision)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), draws)
def test_shares_are_exactly_the_weights(weights, tie):
    assume(sum(weights) > 0)
    total = sum(weights)
    revisions = [Revision(n, weight, (Target(str(n), str(n), "h:1"),)) for n, weight in enumerate(weights)]
    # One draw from the middle of each of `total` equal parts of [0, 1).
    chosen = Counter(
        choose(revisions, {}, revision_draw=(part + 0.5) / total, tie_draw=tie).revision for part in range(total)
    )
    assert chosen == Counter({n: weight for n, weight in enumerate(weights) if weight})


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=6))
def test_a_revision_without_a_target_hands_its_share_on_in_proportion(parts):
    assume(any(has_target for _, has_target in parts))
    revisions = [
        Revision(n, weight, (Target(str(n), str(n), "h:1"),) if has_target else ())
        for n, (weight, has_target) in enumerate(parts)
    ]
    left = {n: weight for n, (weight, has_target) in enumerate(parts) if has_target}
    total = sum(left.values())
    chosen = Counter(
        choose(revisions, {}, revision_draw=(part + 0.5) / total, tie_draw=0).revision for part in range(total)
    )
    assert chosen == left


@given(situations(), draws, draws)
def test_the_choice_is_a_target_of_its_revision_and_was_not_tried(situation, revision_draw, tie_draw):
    revisions, load, ejected, tried = situation
    choice = choose(revisions, load, ejected=ejected, tried=tried, revision_draw=revision_draw, tie_draw=tie_draw)
    left = {target.key for revision in revisions for target in revision.targets} - tried
    if choice is None:
        assert not left
        return
    assert choice.target in _revision_of(revisions, choice).targets
    assert choice.target.key in left
    assert f"revision {choice.revision} " in choice.reason


@given(situations(), draws, draws)
def test_no_open_target_of_that_revision_has_less_load(situation, revision_draw, tie_draw):
    revisions, load, ejected, tried = situation
    choice = choose(revisions, load, ejected=ejected, tried=tried, revision_draw=revision_draw, tie_draw=tie_draw)
    assume(choice is not None and choice.target.key not in ejected)
    rivals = {target.key for target in _revision_of(revisions, choice).targets} - ejected - tried
    assert load.get(choice.target.key, 0) == min(load.get(key, 0) for key in rivals)


@given(situations(), draws, draws)
def test_weight_goes_first_then_health(situation, revision_draw, tie_draw):
    revisions, load, ejected, tried = situation
    choice = choose(revisions, load, ejected=ejected, tried=tried, revision_draw=revision_draw, tie_draw=tie_draw)
    assume(choice is not None)
    with_weight = {t.key for revision in revisions if revision.weight for t in revision.targets} - tried
    assert (choice.target.key in with_weight) is bool(with_weight)
    if choice.target.key in ejected:
        rivals = with_weight or {t.key for revision in revisions for t in revision.targets} - tried
        assert rivals <= ejected
    if not with_weight and choice.target.key not in ejected:
        newest = max(
            revision.number
            for revision in revisions
            if any(target.key not in ejected | tried for target in revision.targets)
        )
        assert choice.revision == newest


@given(situations(), draws, draws)
def test_the_choice_is_a_function_of_its_arguments_and_changes_none(situation, revision_draw, tie_draw):
    revisions, load, ejected, tried = situation
    before = (dict(load), set(ejected), set(tried))
    once, again = (
        choose(revisions, load, ejected=ejected, tried=tried, revision_draw=revision_draw, tie_draw=tie_draw)
        for _ in range(2)
    )
    assert once == again
    assert (load, ejected, tried) == before


@given(st.integers(1, 8))
def test_ties_spread_evenly(count):
    revisions = [Revision(1, 100, tuple(Target(str(n), str(n), "h:1") for n in range(count)))]
    chosen = Counter(
        choose(revisions, {}, revision_draw=0, tie_draw=(part + 0.5) / count).target.key for part in range(count)
    )
    assert set(chosen.values()) == {1}
    assert len(chosen) == count
