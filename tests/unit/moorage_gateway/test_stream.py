"""Events are counted as they pass by, however the network cuts them."""

import random

import pytest

from moorage_gateway.figures import BETWEEN_TOKENS_SECONDS, Histogram
from moorage_gateway.stream import EventCount, told_tokens

EVENT = b'data: {"choices":[{"delta":{"content":"h\xc3\xa9llo \\ndata: \\"completion_tokens\\": 9"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def _count(*pieces, step=1.0):
    gaps = Histogram(BETWEEN_TOKENS_SECONDS)
    count = EventCount(gaps, pieces[0], 0.0)
    for number, piece in enumerate(pieces[1:], 1):
        count.take(piece, number * step)
    return count, gaps


def test_each_event_counts_once_and_done_is_none():
    count, gaps = _count(EVENT, EVENT, EVENT, DONE)
    assert count.tokens == 3
    assert sum(gaps.counts) == 2


def test_done_in_the_last_events_piece_is_no_event():
    assert _count(EVENT, EVENT + DONE)[0].tokens == 2
    assert _count(EVENT + EVENT + DONE)[0].tokens == 2


def test_events_of_one_piece_share_the_time_since_the_one_before():
    _, gaps = _count(EVENT, EVENT * 4, step=0.2)
    assert gaps.counts[BETWEEN_TOKENS_SECONDS.index(0.05)] == 4
    assert gaps.total == pytest.approx(0.2)


def test_comments_are_no_events():
    count, gaps = _count(EVENT, b": ping\n\n", EVENT)
    assert count.tokens == 2
    assert gaps.total == 2


def test_other_line_ends_count_as_well():
    event = EVENT.replace(b"\n", b"\r\n")
    assert _count(event, event + event)[0].tokens == 3


def test_wherever_the_pieces_are_cut_each_event_counts_once():
    chance = random.Random(3)
    whole = EVENT * 400 + DONE
    marks = [at + offset for at in range(0, len(EVENT) * 400, len(EVENT)) for offset in range(1, 5)]
    for _ in range(20):
        cuts = sorted(set(chance.sample(range(1, len(whole) - len(DONE)), 300)) - set(marks))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert _count(*pieces)[0].events == 400


@pytest.mark.parametrize("cut", [None, 8, 40])
def test_what_the_stream_says_of_itself_is_believed(cut):
    end = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":31,"total_tokens":38}}\n\n' + DONE
    pieces = [end] if cut is None else [end[:-cut], end[-cut:]]
    assert _count(EVENT, EVENT, *pieces)[0].tokens == 31


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ([b'data: {"error":{"message":"x"}}\n\n'], True),
        ([b'data: {"error":{"message":"x"}}\n\n', DONE], True),
        ([EVENT + b'data: {"error":{"message":"x"}}\n\n'], True),
        ([b'data:{"err', b'or":{"message":"x"}}\n\n'], True),
        ([b'data:{"error":{"message":"{\\"error\\": 1}"}}\n\n'], True),
        ([EVENT], False),
        ([b'data: {"choices":[],"x":{"error":null}}\n\n', DONE], False),
        ([b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"error\\""}}]}\n\n', DONE], False),
    ],
)
def test_an_error_event_in_the_end_is_seen(end, expected):
    assert _count(EVENT, *end)[0].ended_in_error is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"usage": {"completion_tokens": 5, "prompt_tokens": 2}}', 5),
        (b'{"choices": [{"message": {"content": "\\"completion_tokens\\": 7"}}]}', None),
        (b'{"usage": {"completion_tokens": null}}', None),
        (b"{}", None),
        (b"", None),
    ],
)
def test_a_whole_answer_says_its_tokens(body, expected):
    assert told_tokens(body) == expected
