"""What a replica says of itself, however odd."""

import pytest

from moorage_gateway import report

WHOLE = b'{"running": 2, "waiting": 0, "kvCacheUtilization": 0.5, "tokensPerSecond": 10.5, "gpu": {"available": false}}'


def test_figures_and_gpus_are_read_as_they_are():
    found = report.parse(WHOLE)
    assert found.figures == {"running": 2, "waiting": 0, "kvCacheUtilization": 0.5, "tokensPerSecond": 10.5}
    assert found.gpu == {"available": False}
    assert found.requests == 2


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"null", WHOLE[:-1], b'{"running": NaN}'])
def test_what_is_no_json_object_is_no_report(body):
    assert report.parse(body) is None


@pytest.mark.parametrize("value", [b'"2"', b"null", b"true", b"-1", b"[]", b"{}"])
def test_what_is_no_figure_is_left_out_and_the_others_stay(value):
    found = report.parse(b'{"running": %b, "waiting": 1, "gpu": 5}' % value)
    assert (found.figures, found.gpu, found.requests) == ({"waiting": 1}, None, None)
