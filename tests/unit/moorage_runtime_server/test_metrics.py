from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from moorage_runtime.engine.messages import Stats
from moorage_runtime.server.metrics import Metrics, Tally

BOUNDS = (0.01, 0.025, 1, 80)
VALUES = (0.0, 0.01, 0.02, 1.0, 1.5, 80, 81)


def samples(registry):
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_tally_is_a_histogram():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("vllm:time_seconds", "Time.", {"model_name": "chat"}, BOUNDS)
    ours.register(tally)
    histogram = Histogram("vllm:time_seconds", "Time.", ("model_name",), registry=theirs, buckets=BOUNDS)
    for value in VALUES:
        tally.observe(value)
        histogram.labels("chat").observe(value)
    assert samples(ours) == samples(theirs)


def test_what_the_prefix_cache_found_is_counted_in_tokens():
    metrics = Metrics("chat")
    metrics.stepped(Stats(1, 0, 0.5, 10.0, 0.01, 20, 1, 2, cached_prompt_tokens=48))
    metrics.stepped(Stats(1, 0, 0.5, 10.0, 0.01, 0, 1, 0))
    text = metrics.render(running=1, waiting=0, kv_utilization=0.5).decode()
    labels = '{engine="0",model_name="chat"}'
    assert f"vllm:prefix_cache_queries_total{labels} 68.0" in text
    assert f"vllm:prefix_cache_hits_total{labels} 48.0" in text
    assert f"vllm:prompt_tokens_total{labels} 68.0" in text
    assert f"vllm:num_preemptions_total{labels} 2.0" in text
    assert f"vllm:iteration_tokens_total_sum{labels} 22.0" in text
    assert f"vllm:kv_cache_usage_perc{labels} 0.5" in text
