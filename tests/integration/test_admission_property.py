"""The schema and the models judge alike, for objects nobody thought of: both are made from the same declarations.

The API server compiles the CEL rules to RE2, pydantic runs Python's `re`; a pattern that the two read differently, a
default that only one of them has, or a bound that was lost on the way would show here.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi

from moorage_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from moorage_api.reading import InvalidObjectError, parse

WORDS = st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,8}[A-Za-z0-9]", fullmatch=True).filter(lambda word: ".." not in word)
LABELS = st.from_regex("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
SOURCES = st.one_of(
    st.builds("hf://{}/{}".format, WORDS, WORDS),
    st.builds("hf://{}/{}@{}".format, WORDS, WORDS, WORDS),
    st.builds("hf://{}/{}/{}.gguf@{}".format, WORDS, WORDS, WORDS, WORDS),
    st.builds("pvc://{}".format, LABELS),
    st.builds("pvc://{}/{}/{}".format, LABELS, WORDS, WORDS),
    st.builds("python://{}".format, WORDS),
    st.builds("python://{}=={}".format, WORDS, WORDS),
)
CPUS = st.one_of(st.integers(0, 64), st.integers(0, 64000).map("{}m".format), st.integers(0, 64).map(str))
MEMORIES = st.builds("{}{}".format, st.integers(0, 999), st.sampled_from(["", "k", "Ki", "Mi", "M", "Gi", "G", "Ti"]))
AMOUNTS = st.fixed_dictionaries({}, optional={"cpu": CPUS, "memory": MEMORIES, "ephemeral-storage": MEMORIES})
ENVIRONMENTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), "value": st.text(max_size=9)}
    ),
    max_size=3,
    unique_by=lambda variable: variable["name"],
)
SCHEDULING = st.fixed_dictionaries(
    {}, optional={"policy": st.sampled_from(["FCFS", "Priority", "MLFQ"]), "maxRunning": st.integers(1, 1024)}
)
SPECS = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"source": SOURCES},
            optional={
                "servedName": WORDS,
                "digest": st.binary(min_size=32, max_size=32).map(lambda digest: f"sha256:{digest.hex()}"),
                "contextLength": st.integers(1, 2**31 - 1),
                "quantization": st.sampled_from(["None", "Int8", "Int4"]),
                "credentials": st.fixed_dictionaries({"secretName": LABELS}),
            },
        ).filter(lambda model: ".gguf" not in model["source"] or model.get("quantization", "None") == "None")
    },
    optional={
        "engine": st.fixed_dictionaries(
            {},
            optional={
                "image": st.builds("{}/{}:{}".format, LABELS, LABELS, WORDS),
                "env": ENVIRONMENTS,
                "scheduling": SCHEDULING,
            },
        ),
        "accelerator": st.fixed_dictionaries(
            {},
            optional={
                "resource": st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"]),
                "count": st.integers(1, 64),
                "products": st.lists(WORDS, max_size=3, unique=True),
                "minMemory": st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["Mi", "Gi", "G"])),
            },
        ),
        "resources": st.one_of(
            st.fixed_dictionaries({"requests": AMOUNTS}), st.fixed_dictionaries({"limits": AMOUNTS})
        ),
        "replicas": st.integers(0, 2**31 - 1),
    },
)

# Texts near the border: the characters that patterns care about, some that only one engine may take for a digit or a
# letter, and line ends, which anchors of the two engines treat differently.
NEAR = st.one_of(
    st.text("aA0-_./:@=+!~ é٣\n\r", max_size=8),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["a", "A0", "a-b"]),
        st.sampled_from(["", ".", "..", "/", "@", "_"]),
        st.sampled_from(["", "a", "\n", "é"]),
    ),
)
NEAR_SOURCES = st.builds(
    "{}{}".format,
    st.sampled_from(
        [
            "",
            "s3://",
            "hf://",
            "hf://a/b",
            "hf://a/b@c",
            "pvc://",
            "pvc://a",
            "pvc://a/b",
            "python://a",
            "python://a==1",
        ]
    ),
    st.one_of(NEAR, st.sampled_from(["", "..", "/..", "@", "\n", "é", "?b=c"])),
)
NEAR_SPECS = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {
                "source": NEAR_SOURCES,
                "servedName": NEAR,
                "digest": st.builds("sha256:{}{}".format, st.sampled_from(["", "0" * 64, "0" * 63]), NEAR).map(
                    lambda digest: digest[:71]
                ),
                "credentials": st.fixed_dictionaries({"secretName": NEAR}),
            }
        ),
        "engine": st.fixed_dictionaries(
            {
                "image": NEAR,
                "env": st.tuples(
                    st.fixed_dictionaries(
                        {"name": st.one_of(NEAR, st.sampled_from(["HOME", "HF_TOKEN", "HF_TOKEN\n"])), "value": NEAR}
                    )
                ).map(list),
            }
        ),
        "accelerator": st.fixed_dictionaries(
            {
                "resource": st.builds("{}{}".format, st.sampled_from(["", "a/"]), NEAR),
                "products": st.tuples(NEAR).map(list),
                "minMemory": st.builds("{}{}".format, st.sampled_from(["", "1G", "40"]), NEAR),
            }
        ),
        "resources": st.fixed_dictionaries(
            {
                "limits": st.fixed_dictionaries(
                    {"cpu": st.one_of(st.integers(-3, 3), NEAR), "memory": st.builds("1{}".format, NEAR)}
                )
            }
        ),
    }
)
OF_SEVERAL_FIELDS = {"spec.accelerator", "spec.resources"}
"""Where rules over several fields report; the models leave those to the API server."""


@pytest.fixture(scope="module")
def objects(api_client: ApiClient) -> CustomObjectsApi:
    return CustomObjectsApi(api_client)


def admit(objects: CustomObjectsApi, spec: dict[str, Any]) -> dict[str, Any]:
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "chat"}, "spec": spec}
    return objects.create_namespaced_custom_object(
        GROUP, VERSION, "default", PLURAL, body, dry_run="All", field_validation="Strict"
    )


def refused_fields(objects: CustomObjectsApi, spec: dict[str, Any]) -> set[str]:
    try:
        admit(objects, spec)
    except ApiException as refusal:
        if refusal.status != 422:
            raise
        return {cause["field"] for cause in json.loads(refusal.body)["details"]["causes"]} - OF_SEVERAL_FIELDS
    return set()


def unparsable_fields(spec: dict[str, Any]) -> set[str]:
    try:
        parse({"metadata": {"name": "chat", "namespace": "default"}, "spec": spec})
    except InvalidObjectError as error:
        return {problem.field for problem in error.problems}
    return set()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS)
def test_what_the_schema_takes_the_model_parses_and_writes_back(objects, spec):
    stored = admit(objects, spec)
    parsed = parse(stored)
    assert parsed.unknown_fields == ()
    # The models have the schema's defaults: with or without the API server's, the same value.
    assert parse({"metadata": stored["metadata"], "spec": spec}).deployment.spec == parsed.deployment.spec
    assert parse(admit(objects, parsed.deployment.spec.to_api())).deployment.spec == parsed.deployment.spec


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(spec=NEAR_SPECS)
def test_the_schema_and_the_model_refuse_the_same_fields(objects, spec):
    assert refused_fields(objects, spec) == unparsable_fields(spec)
