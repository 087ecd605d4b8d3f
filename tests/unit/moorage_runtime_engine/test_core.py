"""The engine through its door: submit, cancel, step."""

import pytest

from moorage_runtime.engine.blocks import IntegrityError
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.plan import Limits, Sampled
from tests.simulated_runner import SimulatedRunner, next_token

VOCABULARY = 50


def limits(**changed):
    values = {"context_length": 64, "vocab_size": VOCABULARY, "total_blocks": 16, "max_running": 4, "token_budget": 32}
    return Limits(**{**values, **changed})


@pytest.fixture
def engine():
    return Engine(SimulatedRunner(VOCABULARY), limits())


def run(engine):
    """All outputs until the engine is idle: {id: (tokens, finish reason, error)}; a second end of a request fails."""
    tokens, ends = {}, {}
    while engine.has_work:
        for output in engine.step().outputs:
            assert output.id not in ends
            tokens.setdefault(output.id, []).extend(output.token_ids)
            if output.finish_reason:
                ends[output.id] = (output.finish_reason, output.error)
    engine.check()
    return {name: (tokens[name], *end) for name, end in ends.items()}


def expected(prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, VOCABULARY))
    return tokens[len(prompt) :]


def test_a_request_gets_its_tokens_and_ends_with_length(engine):
    engine.submit(Submit("a", [1, 2, 3], 20))
    assert run(engine) == {"a": (expected([1, 2, 3], 20), "length", "")}


def test_batched_requests_get_what_they_get_alone(engine):
    prompts = {name: [index + 1] * (5 * index + 1) for index, name in enumerate("abcdef")}
    for name, prompt in prompts.items():
        engine.submit(Submit(name, prompt, 10))
    assert run(engine) == {name: (expected(prompt, 10), "length", "") for name, prompt in prompts.items()}


def test_a_stop_token_ends_the_request_and_is_in_its_output(engine):
    tokens = expected([4, 5], 6)
    engine.submit(Submit("a", [4, 5], 20, stop_token_ids=[tokens[-1]]))
    assert run(engine) == {"a": (tokens[: tokens.index(tokens[-1]) + 1], "stop", "")}


def test_the_context_is_the_last_bound(engine):
    engine.submit(Submit("a", [1] * 60, 1000))
    assert run(engine) == {"a": (expected([1] * 60, 4), "length", "")}


def test_cancelling_frees_the_blocks_at_once_and_ends_with_abort(engine):
    engine.submit(Submit("a", [1] * 20, 30))
    engine.submit(Submit("b", [2] * 20, 2))
    engine.step()
    held = engine.kv_utilization
    engine.cancel("a")
    assert engine.kv_utilization < held
    assert engine.running == 1
    ends = run(engine)
    assert ends["a"][1:] == ("abort", "")
    assert ends["b"][1:] == ("length", "")
    assert engine.kv_utilization == 0


def test_a_waiting_request_can_be_cancelled(engine):
    engine.submit(Submit("a", [1], 5))
    engine.cancel("a")
    assert run(engine) == {"a": ([], "abort", "")}


def test_cancelling_what_has_ended_or_never_was_does_nothing(engine):
    engine.submit(Submit("a", [1], 1))
    run(engine)
    engine.cancel("a")
    engine.cancel("unknown")
    assert not engine.has_work


def test_cancel_all_ends_everything(engine):
    for name in "abcdef":
        engine.submit(Submit(name, [1] * 8, 20))
    engine.step()
    engine.cancel_all()
    assert {end[1] for end in run(engine).values()} == {"abort"}
    assert (engine.running, engine.waiting) == (0, 0)


def test_preempted_requests_lose_nothing():
    """Four requests of up to four blocks each over six blocks."""
    engine = Engine(SimulatedRunner(VOCABULARY), limits(total_blocks=6))
    for name in "abcd":
        engine.submit(Submit(name, [ord(name) - 90] * 8, 40))
    preemptions = told = 0
    tokens = {name: [] for name in "abcd"}
    while engine.has_work:
        report = engine.step()
        preemptions += report.preemptions
        told += report.prompt_tokens + report.cached_prompt_tokens
        for output in report.outputs:
            tokens[output.id] += output.token_ids
    assert preemptions > 0
    assert tokens == {name: expected([ord(name) - 90] * 8, 40) for name in "abcd"}
    assert told == 4 * 8  # what is computed again is not told again
    engine.check()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Submit("x", [], 1), "the prompt has no tokens"),
        (Submit("x", [1] * 64, 1), "the prompt has 64 tokens; the context length is 64"),
        (Submit("x", [1], 0), "max_tokens is 0; it must be at least 1"),
        (Submit("x", [1], 1, timeout_seconds=0.0), "timeout_seconds is 0; it must be greater than 0"),
        (Submit("x", [1], 1, timeout_seconds=float("nan")), "timeout_seconds is nan; it must be greater than 0"),
        (Submit("x", [50], 1), "the prompt has a token id outside of the vocabulary (0 to 49)"),
        (Submit("x", [-1], 1), "the prompt has a token id outside of the vocabulary (0 to 49)"),
        (Submit("x", [1], 1, SamplingParams(temperature=float("nan"))), "temperature must lie in [0, 1e+06]"),
        (Submit("x", [1], 1, SamplingParams(temperature=-1.0)), "temperature must lie in [0, 1e+06]"),
        (Submit("x", [1], 1, SamplingParams(top_p=0.0)), "top_p must lie in (0, 1]"),
        (Submit("x", [1], 1, SamplingParams(top_k=-1)), "top_k must lie in [0, inf)"),
        (Submit("x", [1], 1, SamplingParams(min_p=1.5)), "min_p must lie in [0, 1]"),
        (Submit("x", [1], 1, SamplingParams(repetition_penalty=0.0)), "repetition_penalty must lie in [1e-06, 1e+06]"),
        (
            Submit("x", [1], 1, SamplingParams(repetition_penalty=1e-300)),
            "repetition_penalty must lie in [1e-06, 1e+06]",
        ),
        (Submit("x", [1], 1, SamplingParams(presence_penalty=1e300)), "presence_penalty must lie in [-1e+06, 1e+06]"),
        (
            Submit("x", [1], 1, SamplingParams(frequency_penalty=float("nan"))),
            "frequency_penalty must lie in [-1e+06, 1e+06]",
        ),
        (
            Submit("x", [1], 1, SamplingParams(logit_bias={1: -1e39})),
            "values of logit_bias must lie in [-1e+06, 1e+06]",
        ),
        (Submit("x", [1], 1, SamplingParams(logprobs=21)), "logprobs must lie in [0, 20]"),
        (Submit("x", [1], 1, SamplingParams(logit_bias={50: 1.0})), "token ids of logit_bias must lie in [0, 50)"),
    ],
)
def test_what_can_never_be_computed_ends_with_the_reason_and_harms_nobody(engine, request_, reason):
    engine.submit(Submit("good", [1], 2))
    engine.submit(request_)
    ends = run(engine)
    assert ends["x"] == ([], "error", reason)
    assert ends["good"][1] == "length"


def test_an_id_in_use_is_refused(engine):
    engine.submit(Submit("a", [1], 2))
    with pytest.raises(ValueError, match="submitted twice"):
        engine.submit(Submit("a", [1], 2))


def test_a_model_that_computes_no_number_ends_the_request_with_error():
    class Broken(SimulatedRunner):
        def execute(self, plan):
            return [Sampled(None) for _ in super().execute(plan)]

    engine = Engine(Broken(VOCABULARY), limits())
    engine.submit(Submit("a", [1], 2))
    assert run(engine) == {"a": ([], "error", "the model computed no finite number for this request")}
    assert engine.kv_utilization == 0


def test_the_report_counts_what_was_computed(engine):
    engine.submit(Submit("a", [1] * 40, 2))
    reports = [engine.step() for _ in range(3)]
    assert [(report.prompt_tokens, report.generated_tokens) for report in reports] == [(32, 0), (8, 1), (0, 1)]


def test_cached_prompt_tokens_are_told_with_the_first_token_and_in_the_report(engine):
    prompt = list(range(40))
    engine.submit(Submit("a", prompt, 2))
    run(engine)
    engine.submit(Submit("b", prompt, 3))
    reports = [engine.step() for _ in range(3)]
    assert [report.cached_prompt_tokens for report in reports] == [32, 0, 0]
    assert [report.outputs[0].cached_prompt_tokens for report in reports] == [32, 0, 0]
    assert reports[0].prompt_tokens == 8


def test_a_generated_block_is_known_to_the_next_turn_of_a_conversation(engine):
    prompt = list(range(10))
    engine.submit(Submit("a", prompt, 30))
    answer, *_ = run(engine)["a"]
    engine.submit(Submit("b", [*prompt, *answer, 1, 2, 3], 1))
    assert engine.step().cached_prompt_tokens == 32


def test_several_answers_to_one_prompt_compute_it_once():
    engine = Engine(SimulatedRunner(VOCABULARY), limits(token_budget=16))
    prompt = list(range(40))
    for name in "abcd":
        engine.submit(Submit(name, prompt, 5))
    computed = 0
    while engine.has_work:
        computed += engine.step().prompt_tokens
    assert computed == 40 + 3 * 8


def test_what_a_broken_model_computed_is_found_by_nobody():
    class Broken(SimulatedRunner):
        def execute(self, plan):
            return [Sampled(None) for _ in super().execute(plan)]

    engine = Engine(Broken(VOCABULARY), limits(token_budget=64))
    engine.submit(Submit("a", list(range(40)), 2))
    run(engine)
    engine.submit(Submit("b", list(range(40)), 2))
    assert engine.step().cached_prompt_tokens == 0


def test_a_request_out_of_time_ends_with_timeout_in_the_step_after(engine):
    engine.submit(Submit("a", [1], 30, timeout_seconds=2.5), now=100.0)
    engine.submit(Submit("b", [2], 3), now=100.0)
    assert [output.token_ids for output in engine.step(now=102.4).outputs] != []
    late = engine.step(now=102.5).outputs
    assert (late[0].id, late[0].token_ids, late[0].finish_reason) == ("a", [], "timeout")
    assert run(engine)["b"][1] == "length"


def test_one_that_waits_runs_out_of_time_too():
    engine = Engine(SimulatedRunner(VOCABULARY), limits(max_running=1))
    engine.submit(Submit("a", [1], 5), now=0.0)
    engine.submit(Submit("b", [2], 5, timeout_seconds=1.0), now=0.0)
    engine.step(now=0.5)
    assert ("b", "timeout") in [(output.id, output.finish_reason) for output in engine.step(now=1.0).outputs]


def test_a_time_limit_that_passes_after_the_end_does_nothing(engine):
    engine.submit(Submit("a", [1], 1, timeout_seconds=1.0), now=0.0)
    assert engine.step(now=0.5).outputs[0].finish_reason == "length"
    assert engine.step(now=2.0).outputs == []


def test_nothing_is_kept_of_a_time_limit_whose_request_has_ended(engine):
    for name in "abc":
        engine.submit(Submit(name, [1], 1, timeout_seconds=1e9), now=0.0)
    engine.cancel("b")
    run(engine)
    assert engine._deadlines == {}


def test_the_time_in_the_queue_is_told_with_the_first_token():
    engine = Engine(SimulatedRunner(VOCABULARY), limits(max_running=1))
    engine.submit(Submit("a", [1], 2), now=10.0)
    engine.submit(Submit("b", [2], 2), now=11.0)
    outputs = [output for now in (12.0, 13.0, 14.0, 15.0) for output in engine.step(now).outputs]
    assert [(output.id, output.queue_seconds) for output in outputs] == [("a", 2.0), ("a", 0.0), ("b", 3.0), ("b", 0.0)]


def test_the_check_finds_a_request_that_is_in_no_queue(engine):
    engine.submit(Submit("a", [1], 5))
    engine.step()
    engine.check()
    engine._scheduler.running.clear()
    with pytest.raises(IntegrityError):
        engine.check()


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="scheduling policy"):
        Engine(SimulatedRunner(VOCABULARY), limits(policy="Fair"))


@pytest.mark.parametrize("policy", ["FCFS", "Priority", "MLFQ"])
def test_every_policy_gives_every_request_its_own_tokens(policy):
    engine = Engine(SimulatedRunner(VOCABULARY), limits(policy=policy, total_blocks=9, max_running=2))
    prompts = {name: [index] * (7 * index + 1) for index, name in enumerate("abcdefg")}
    for index, (name, prompt) in enumerate(prompts.items()):
        engine.submit(Submit(name, prompt, 12, priority=-index))
    assert run(engine) == {name: (expected(prompt, 12), "length", "") for name, prompt in prompts.items()}
