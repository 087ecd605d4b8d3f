"""A source that is admitted is one that the fetch container can read, and both see the same parts in it."""

from hypothesis import given
from hypothesis import strategies as st

from moorage_api.source import ClaimSource, HubSource, PythonSource, parse_source
from moorage_runtime.fetch import source as fetch

TEXTS = st.one_of(
    st.from_regex("hf://[aB0._-]{1,5}/[aB0._-]{1,5}(/[aB0._/-]{0,5}[.]gguf)?(@[aB0._/-]{1,5})?", fullmatch=True),
    st.from_regex("pvc://[a0.-]{1,5}(/[aB0._/-]{0,9})?", fullmatch=True),
    st.from_regex("python://[aB0._-]{1,5}(==[aB0._+!-]{1,5})?", fullmatch=True),
)


def admitted(text: str) -> bool:
    """As the schema's rules judge; `..` is one of theirs."""
    try:
        parse_source(text)
    except ValueError:
        return False
    return ".." not in text


@given(TEXTS.filter(admitted))
def test_fetch_reads_what_is_admitted(text):
    match parse_source(text), fetch.parse_source(text):
        case HubSource() as ours, fetch.HubSource() as theirs:
            assert (ours.repository, ours.file, ours.revision or "main") == (
                theirs.repository,
                theirs.file,
                theirs.revision,
            )
        case ClaimSource() as ours, fetch.VolumeSource() as theirs:
            assert (ours.claim, ours.path) == (theirs.claim, theirs.path)
        case PythonSource() as ours, fetch.PythonSource() as theirs:
            assert (ours.package, ours.version) == (theirs.name, theirs.version)
        case ours, theirs:
            raise AssertionError(f"{ours} and {theirs} are different kinds")
