"""Shares are exactly the weights, and a session stays where it is while weights move."""

from collections import Counter
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from moorage_gateway.balance import choose
from moorage_gateway.draw import Draws, sticky
from moorage_gateway.table import Model, Revision, Target

chances = st.floats(0, 1, exclude_max=True)
sessions = st.text(min_size=1, max_size=40)


def _model(*weights, deployment="chat"):
    revisions = tuple(Revision(n, weight, (Target(f"r{n}", f"r{n}", "h:1"),)) for n, weight in enumerate(weights, 1))
    return Model("team-a", deployment, deployment, 0, "Serving", "", revisions)


def _revision(model, draw):
    return choose(model.revisions, {}, revision_draw=draw, tie_draw=0).revision


@st.composite
def hundreds(draw):
    """Weights of some revisions, 100 together."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=4)))
    return [later - earlier for earlier, later in pairwise([0, *cuts, 100])]


@given(hundreds(), chances, st.integers(0, 250), st.integers(1, 3))
def test_of_any_hundred_requests_in_a_row_each_revision_gets_its_weight(weights, chance, before, hundred):
    model, draws = _model(*weights), Draws(lambda: chance)
    for _ in range(before):
        draws.next(model, "")
    chosen = Counter(_revision(model, draws.next(model, "")) for _ in range(100 * hundred))
    assert chosen == Counter({n: weight * hundred for n, weight in enumerate(weights, 1) if weight})


@given(st.integers(1, 99), chances, st.integers(1, 400))
def test_in_fewer_requests_the_share_is_off_by_two_at_most(weight, chance, requests):
    model, draws = _model(100 - weight, weight), Draws(lambda: chance)
    chosen = Counter(_revision(model, draws.next(model, "")) for _ in range(requests))
    assert abs(chosen[2] - requests * weight / 100) <= 2


@given(chances)
def test_models_take_turns_of_their_own(chance):
    draws = Draws(lambda: chance)
    first, second = _model(50, 50), _model(50, 50, deployment="code")
    mixed = [(draws.next(first, ""), draws.next(second, "")) for _ in range(100)]
    for model, found in ((first, [pair[0] for pair in mixed]), (second, [pair[1] for pair in mixed])):
        assert Counter(_revision(model, draw) for draw in found) == {1: 50, 2: 50}


@given(sessions, st.lists(st.integers(0, 100), min_size=2, max_size=12).map(sorted), st.booleans())
def test_a_session_moves_to_the_revision_whose_weight_rises_and_never_back(session, rising, newer):
    seen = []
    for weight in rising:
        model = _model(*((100 - weight, weight) if newer else (weight, 100 - weight)))
        assume(any(revision.weight for revision in model.revisions))
        seen.append(_revision(model, sticky(model.key, session)))
    candidate = 2 if newer else 1
    moved = [number == candidate for number in seen]
    assert moved == sorted(moved)


@given(sessions, st.integers(0, 100))
def test_a_session_goes_to_the_newest_revision_when_its_hash_is_under_the_weight(session, weight):
    model = _model(100 - weight, weight)
    expected = 2 if sticky(model.key, session) < weight / 100 else 1
    assert _revision(model, sticky(model.key, session)) == expected


@given(sessions, chances, chances)
def test_every_gateway_agrees_on_a_session_whatever_it_served_before(session, one, other):
    model = _model(50, 50)
    first, second = Draws(lambda: one), Draws(lambda: other)
    first.next(model, "")
    assert first.next(model, session) == second.next(model, session) == sticky(model.key, session)


@given(sessions)
def test_the_place_of_a_session_is_in_range_and_its_deployments_own(session):
    assert 0 <= sticky(("a", "chat"), session) < 1
    assert sticky(("a", "chat"), session) != sticky(("a", "code"), session)


def test_sessions_spread_over_the_weights():
    model = _model(80, 20)
    chosen = Counter(_revision(model, sticky(model.key, f"user-{n}")) for n in range(5000))
    assert abs(chosen[2] - 1000) < 150  # five standard deviations


def test_turns_of_models_that_are_gone_are_forgotten():
    draws = Draws(lambda: 0.5)
    model = _model(100)
    begin = draws.next(model, "")
    assert draws.next(model, "") != begin
    draws.keep([model])
    assert draws.next(model, "") != begin
    draws.keep([])
    assert draws.next(model, "") == begin
