"""Laws of waiting: nobody waits for ever, nobody is refused while there is a replica, and who came first goes first."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from moorage_gateway.holding import Case, judge, retry_after
from moorage_gateway.table import Model, Start

starts = st.builds(
    Start, st.booleans(), st.booleans(), st.one_of(st.none(), st.floats(0, 2e9)), st.integers(0, 100_000)
)
models = st.builds(
    Model,
    st.just("a"),
    st.just("b"),
    st.just("c"),
    st.just(0),
    st.just(""),
    st.just(""),
    st.just(()),
    starts,
    st.integers(1, 1024),
)
small = st.integers(0, 200)
cases = st.builds(
    Case,
    st.one_of(st.none(), models),
    st.one_of(st.none(), small),
    st.floats(0, 20),
    small,
    small,
    small,
    st.booleans(),
    st.floats(-10, 600),
    st.booleans(),
)


@given(cases)
def test_nobody_waits_longer_than_allowed_or_where_it_is_no_use(case):
    verdict = judge(case)
    if case.left <= 0 or case.model is None or (case.load is None and not case.model.start.possible):
        assert verdict.act != "hold"


@given(cases)
def test_nobody_is_refused_while_there_is_a_replica_and_nobody_goes_where_there_is_none(case):
    verdict = judge(case)
    if case.model is not None:
        assert verdict.act != ("go" if case.load is None else "refuse")


@given(cases)
def test_whoever_is_behind_goes_only_when_its_time_is_over_or_it_cannot_be_kept(case):
    if case.model is not None and case.ahead and judge(case).act == "go":
        assert case.left <= 0 or not case.fits


@given(cases)
def test_nothing_is_kept_that_there_is_no_memory_for(case):
    if not case.fits:
        assert judge(case).act == "refuse" or case.load is not None


@given(cases, st.integers(1, 50))
def test_room_is_never_taken_away_by_less_load(case, less):
    if judge(case).act == "go" and case.load is not None:
        assert judge(dataclasses.replace(case, load=max(0, case.load - less))).act == "go"


@given(starts, st.floats(0, 2e9), st.floats(0, 600))
def test_when_to_ask_again_is_whole_seconds_to_come_or_not_said(start, now, waited):
    seconds = retry_after(start, now, waited)
    if not start.possible:
        assert seconds is None
    elif seconds is None:
        assert (start.ready_at, start.seconds, waited) == (None, 0, 0)
    else:
        assert seconds >= 1
        if start.ready_at is not None and start.ready_at > now:
            assert now + seconds >= start.ready_at - 1e-3
