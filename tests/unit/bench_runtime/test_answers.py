"""Counting what servers stream, whatever they put into one event."""

import json

import pytest

from bench.runtime.answers import Answer, EventStream, ServerError, percentile, sample
from bench.runtime.cells import OUT


def chunk(text: str | None = None, *, finish: str | None = None, usage: int | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    choices = [] if usage is not None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    counted = None if usage is None else {"prompt_tokens": 30, "completion_tokens": usage}
    return json.dumps({"choices": choices, "usage": counted}).encode()


def answer(sent: float, events: list[float], *, finish: str | None = "length", tokens: int | None = None) -> Answer:
    return Answer(sent, events, finish, tokens)


def test_events_are_cut_out_of_any_pieces():
    body = b"data: one\r\n\r\n: ping\n\ndata:two\n\ndata: [DONE]\n\n"
    for size in range(1, len(body)):
        stream = EventStream()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert [event for piece in pieces for event in stream.feed(piece)] == [b"one", b"two", b"[DONE]"]


def test_an_answer_is_as_long_as_the_server_counted():
    read = Answer(0.0)
    for event in (chunk(""), chunk("a"), chunk("b c"), chunk(finish="length"), chunk(usage=OUT), b"[DONE]"):
        read.take(event, 1.0)
    assert (read.tokens, len(read.events), read.prompt_tokens) == (OUT, 2, 30)


def test_a_server_that_does_not_count_is_believed_where_it_cut_the_answer():
    read = Answer(0.0)
    for event in (chunk("a"), chunk("b"), chunk(finish="length")):
        read.take(event, 1.0)
    assert read.tokens == OUT


def test_an_answer_that_ended_by_itself_and_was_not_counted_has_no_known_length():
    read = Answer(0.0)
    for event in (chunk("a"), chunk(finish="stop")):
        read.take(event, 1.0)
    assert read.tokens is None


def test_an_error_in_the_stream_is_raised():
    with pytest.raises(ServerError, match="out of memory"):
        Answer(0.0).take(b'{"error": {"message": "out of memory"}}', 1.0)


def test_events_of_several_tokens_count_as_such():
    two_each = answer(0.0, [1.0, 2.0, 3.0, 4.0], tokens=8)
    assert sample([two_each], 0.5, 4.5).tok_s == pytest.approx(8 / 4)
    assert sample([two_each], 2.5, 4.5).tok_s == pytest.approx(4 / 2)


def test_an_unfinished_answer_counts_like_the_finished_ones():
    found = sample([answer(0.0, [1.0, 2.0], tokens=4), answer(1.0, [3.0], finish=None)], 0.0, 4.0)
    assert found.tok_s == pytest.approx((4 + 2) / 4)
    assert (found.tokens_per_event, found.requests, found.cut_share) == (2.0, 1, 1.0)


def test_times_are_those_of_the_window():
    early = answer(0.0, [0.5, 0.6], tokens=2)
    late = answer(1.0, [1.3, 1.5, 1.7, 9.0], tokens=4)
    found = sample([early, late], 1.0, 2.0)
    assert (found.ttft_p50_ms, found.itl_p50_ms, found.itl_p95_ms) == pytest.approx((300, 200, 200))


def test_a_window_without_tokens_is_no_measurement():
    with pytest.raises(ServerError, match="without two tokens"):
        sample([answer(0.0, [1.0, 2.0], tokens=2)], 5.0, 6.0)
    with pytest.raises(ServerError, match="no answer was complete"):
        sample([answer(0.0, [1.0, 2.0], finish=None)], 0.0, 6.0)


def test_the_percentile_is_one_of_the_values():
    assert percentile([float(value) for value in range(1, 101)], 0.95) == 95
    assert percentile([3.0], 0.95) == 3
