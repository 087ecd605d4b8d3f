from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from moorage_runtime.server.stop import StopMatcher

TEXT = st.text("abc", max_size=30)


def run(stops, pieces):
    matcher = StopMatcher(stops)
    out = ""
    for piece in pieces:
        out += matcher.push(piece)
        if matcher.matched:
            return out
    return out + matcher.finish()


@given(stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), text=TEXT, cuts=st.lists(st.integers(0, 30)))
def test_where_the_text_is_cut_makes_no_difference(stops, text, cuts):
    edges = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    pieces = [text[low:high] for low, high in pairwise(edges)]
    assert run(stops, pieces) == run(stops, list(text))


@given(stop=st.text("abc", min_size=1, max_size=4), text=TEXT)
def test_one_stop_string_cuts_at_its_first_place(stop, text):
    assert run([stop], list(text)) == text.partition(stop)[0]
