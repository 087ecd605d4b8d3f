"""Labels come with a revision and go with it."""

import pytest

from moorage_gateway.metrics import Metrics
from moorage_gateway.table import Model, Revision

CHAT = Model("team-a", "chat", "chat", 0, "Serving", "", (Revision(1, 100, ()),))


@pytest.fixture
def metrics():
    return Metrics()


def test_a_revision_that_left_takes_its_labels_along(metrics):
    series = metrics.series(CHAT, 1)
    metrics.ended(series, 200)
    assert 'deployment="chat"' in metrics.text().decode()
    metrics.keep([])
    assert 'deployment="chat"' not in metrics.text().decode()


def test_a_request_that_outlives_its_revision_does_not_bring_them_back(metrics):
    series = metrics.series(CHAT, 1)
    metrics.keep([])
    metrics.ended(series, 200)
    metrics.failed(series, "client_gone")
    assert 'deployment="chat"' not in metrics.text().decode()
