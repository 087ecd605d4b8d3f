"""The command line that the operator renders is one that the runtime understands, and both mean the same by it."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from moorage_api.llmdeployment import Model, Scheduling, Spec
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import GRACE_PERIOD, pod_template
from moorage_runtime.server.command_line import DEFAULT_MAX_RUNNING, options_of, parser

CONTEXT = Context("moorage/runtime:1", "http://gateway/v1")
QUANTIZATIONS = get_args(Model.model_fields["quantization"].annotation)
POLICIES = get_args(Scheduling.model_fields["policy"].annotation)
MODELS = st.fixed_dictionaries(
    {"source": st.just("hf://org/model")},
    optional={"contextLength": st.integers(1, 2**31 - 1), "quantization": st.sampled_from(QUANTIZATIONS)},
)
SCHEDULINGS = st.fixed_dictionaries(
    {}, optional={"policy": st.sampled_from(POLICIES), "maxRunning": st.integers(1, 1024)}
)


@given(MODELS, SCHEDULINGS)
def test_the_runtime_is_asked_for_what_the_resource_says(model, scheduling):
    spec = Spec.model_validate({"model": model, "engine": {"scheduling": scheduling}})
    (server,) = pod_template(Owner("chat", "team", "u1"), 1, spec, CONTEXT)["spec"]["containers"]
    program, *arguments = server["command"]
    options = options_of(parser().parse_args(arguments))
    assert (program, options.served_name, options.port) == ("moorage-runtime", "chat", 8000)
    assert 0 < options.drain_seconds < GRACE_PERIOD
    engine = options.engine
    assert engine.context_length == spec.model.context_length
    assert (engine.quantization or "None") == spec.model.quantization
    assert (engine.scheduling_policy, engine.max_running) == (
        scheduling.get("policy", "FCFS"),
        spec.engine.scheduling.max_running,
    )


def test_without_a_resource_the_runtime_has_the_same_default():
    assert Scheduling().max_running == DEFAULT_MAX_RUNNING
