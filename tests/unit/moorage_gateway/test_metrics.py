"""Labels come with a revision and go with it; what Prometheus reads is what was counted."""

import itertools

import pytest

from moorage_gateway.figures import BETWEEN_TOKENS_SECONDS, FIRST_TOKEN_SECONDS, Book, Histogram
from moorage_gateway.metrics import Metrics
from moorage_gateway.table import Model, Revision
from moorage_gateway.targets import Targets

CHAT = Model("team-a", "chat", "smol", 0, "Serving", "", (Revision(1, 100, ()),))
LABELS = {"namespace": "team-a", "deployment": "chat", "revision": "1"}


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def metrics(book):
    return Metrics(book, Targets())


def test_a_revision_that_left_takes_its_labels_along(metrics, book):
    book.of(CHAT, 1).end(200)
    assert 'deployment="chat"' in metrics.text().decode()
    book.keep([])
    assert 'deployment="chat"' not in metrics.text().decode()


def test_a_revision_stays_while_a_request_of_it_runs(metrics, book):
    figures = book.of(CHAT, 1)
    figures.in_flight += 1
    book.keep([])
    assert book.of(CHAT, 1) is figures
    figures.in_flight -= 1
    book.keep([])
    assert 'deployment="chat"' not in metrics.text().decode()


def test_figures_of_a_revision_that_serves_are_kept(book):
    figures = book.of(CHAT, 1)
    book.of(CHAT, 2)
    book.keep([CHAT])
    assert book.pages == {("team-a", "chat"): {1: figures}}


def test_errors_are_what_the_replica_did_wrong(book):
    figures = book.of(CHAT, 1)
    for status, failure in [(200, ""), (0, "connect"), (503, "unavailable"), (200, "client_gone"), (200, "cut")]:
        figures.end(status, failure)
    assert (figures.requests, figures.errors) == (5, 3)


def test_every_figure_has_its_name(metrics, book):
    figures = book.of(CHAT, 1)
    figures.in_flight, figures.tokens = 2, 40
    figures.end(200)
    figures.end(0, "connect")
    figures.first_token.observe(0.3)
    figures.between_tokens.observe(0.011, times=3)
    figures.between_tokens.observe(99)
    figures.duration.observe(4)

    def sample(name, **labels):
        return metrics.registry.get_sample_value(f"moorage_gateway_{name}", LABELS | labels)

    assert sample("requests_total", code="200") == 1
    assert sample("requests_total", code="none") == 1
    assert sample("errors_total", kind="connect") == 1
    assert sample("requests_in_flight") == 2
    assert sample("tokens_total") == 40
    assert sample("time_to_first_token_seconds_bucket", le="0.2") == 0
    assert sample("time_to_first_token_seconds_bucket", le="0.3") == 1
    assert sample("inter_token_latency_seconds_bucket", le="0.015") == 3
    assert sample("inter_token_latency_seconds_bucket", le="7.5") == 3
    assert sample("inter_token_latency_seconds_bucket", le="+Inf") == 4
    assert sample("inter_token_latency_seconds_count") == 4
    assert sample("inter_token_latency_seconds_sum") == pytest.approx(99.033)
    assert sample("request_duration_seconds_count") == 1
    assert metrics.registry.get_sample_value("moorage_gateway_ejections_total") == 0


def test_a_bound_belongs_to_its_bucket_and_the_last_one_takes_the_rest():
    histogram = Histogram((1.0, 2.0))
    for seconds in (0, 1, 1.001, 2, 2.001, 100):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2]


@pytest.mark.parametrize("bounds", [FIRST_TOKEN_SECONDS, BETWEEN_TOKENS_SECONDS])
def test_bounds_rise_in_even_steps(bounds):
    assert all(1 < later / bound < 1.7 for bound, later in itertools.pairwise(bounds))
    assert len(bounds) == 24
