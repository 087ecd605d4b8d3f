"""Nodes judged for pods, whatever a person wrote into their affinity: no reading of it ends in an exception."""

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_api.llmdeployment import Spec
from moorage_operator.plan.nodes import misfit, nodes, room
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
MEMORY = "nvidia.com/gpu.memory"
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=4), st.lists(st.text(max_size=4), max_size=3)
)
VALUES = st.lists(st.one_of(st.sampled_from(["1", "-5", "40Gi", "a", "", "٣", "1_0", " 7"]), ANYTHING), max_size=3)
OPERATORS = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "gt"])
EXPRESSIONS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.one_of(st.sampled_from([MEMORY, "zone"]), ANYTHING),
        "operator": st.one_of(OPERATORS, OPERATORS, ANYTHING),
        "values": st.one_of(VALUES, VALUES, ANYTHING),
    },
)
MANY = st.lists(st.one_of(EXPRESSIONS, EXPRESSIONS, ANYTHING), max_size=3)
TERMS = st.fixed_dictionaries({}, optional={"matchExpressions": st.one_of(MANY, ANYTHING), "matchFields": MANY})
AFFINITIES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {REQUIRED: st.one_of(ANYTHING, st.fixed_dictionaries({"nodeSelectorTerms": st.lists(TERMS, max_size=3)}))}
    ),
    st.fixed_dictionaries({REQUIRED: st.fixed_dictionaries({"nodeSelectorTerms": ANYTHING})}),
)
LISTED = {
    "metadata": {"name": "n", "labels": {MEMORY: "81559", "zone": "a"}},
    "status": {"allocatable": {"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi", "pods": "110"}},
}


@settings(max_examples=500)
@given(AFFINITIES, st.booleans())
def test_whatever_an_affinity_says_a_node_fits_or_does_not(affinity, accelerated):
    more = {"accelerator": {"count": 1, "minMemory": "40Gi"}} if accelerated else {}
    template = {"spec": {"affinity": {"nodeAffinity": affinity}}}
    spec = Spec.model_validate({"model": {"source": "python://model==1"}, "podTemplate": template, **more})
    pod = pod_template(Owner("chat", "team", "u1"), 1, spec, Context("runtime:1", "http://gateway"), None)["spec"]
    (node,) = nodes([LISTED], {})
    assert misfit(node, pod) in ("", "its labels")
    assert room(node, pod) == (0 if misfit(node, pod) else 8 if accelerated else 110)
