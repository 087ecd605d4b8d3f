"""An answer from what the engine sends, without a server around it."""

import pytest

from moorage_runtime.engine.messages import Output
from moorage_runtime.server.answer import Answer
from moorage_runtime.server.errors import EngineFailedError
from moorage_runtime.server.metrics import Metrics
from moorage_runtime.server.outputs import OutputStream


class Client:
    """Remembers what was cancelled."""

    def __init__(self):
        self.cancelled = []

    def cancel(self, ids):
        self.cancelled += ids


def answer_of(stream, tokenizer, **more):
    return Answer(
        client=Client(),
        stream=stream,
        metrics=Metrics("chat"),
        tokenizer=tokenizer,
        prompt_tokens=[1] * len(stream.ids),
        choices=len(stream.ids),
        ending_ids=frozenset({256}),
        arrived=0.0,
        **{"stops": ()} | more,
    )


def put(stream, tokenizer, identifier, text, reason=None):
    stream.put(Output(identifier, tokenizer.encode(text).ids, finish_reason=reason), 1.0)


async def test_text_that_came_with_the_failure_is_given_before_it(tokenizer):
    stream = OutputStream(["a", "b"])
    answer = answer_of(stream, tokenizer)
    put(stream, tokenizer, "a", "one")
    put(stream, tokenizer, "b", "two")
    stream.fail("The engine was killed.", 1.0)
    deltas = answer.deltas()
    assert [(delta.index, delta.text) for delta in await anext(deltas)] == [(0, "one"), (1, "two")]
    with pytest.raises(EngineFailedError, match="was killed"):
        await anext(deltas)
    answer.close()
    assert answer.client.cancelled == ["b"]


async def test_a_stop_string_in_one_choice_leaves_the_others_alone(tokenizer):
    stream = OutputStream(["a", "b"])
    answer = answer_of(stream, tokenizer, stops=["END"])
    put(stream, tokenizer, "a", "one EN")
    put(stream, tokenizer, "b", "two EN")
    put(stream, tokenizer, "a", "D and more")
    put(stream, tokenizer, "a", "of what is nobody's", "abort")
    put(stream, tokenizer, "b", "", "length")
    deltas = [delta async for batch in answer.deltas() for delta in batch]
    texts = ["".join(delta.text for delta in deltas if delta.index == index) for index in range(2)]
    assert texts == ["one ", "two EN"]
    assert [(delta.index, delta.finish_reason) for delta in deltas if delta.finish_reason] == [
        (0, "stop"),
        (1, "length"),
    ]
    assert answer.client.cancelled == ["a"]
