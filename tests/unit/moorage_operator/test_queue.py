"""The work queue in virtual time."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from moorage_operator.shell.queue import Backoff, QueueMetrics, WorkQueue


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end and not timer.cancelled]:
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.now = timer.when
            timer.callback()
        self.now = end


class FakeTimer:
    def __init__(self, when, callback):
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def queue(clock, registry):
    return WorkQueue(clock, chance=lambda: 0.0, metrics=QueueMetrics(registry))


async def take_all(queue):
    keys = []
    while len(queue):
        keys.append(await queue.get())
        queue.done(keys[-1])
    return keys


async def test_a_key_added_twice_is_worked_on_once(queue):
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert await take_all(queue) == ["a", "b"]


async def test_a_key_is_never_with_two_workers_and_comes_again_when_it_was_asked_for_meanwhile(queue):
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await take_all(queue) == ["a"]


async def test_a_worker_waits_for_a_key(queue):
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("a")
    assert await waiting == "a"


async def test_of_several_delays_the_earliest_counts(queue, clock):
    queue.add_after("a", 10)
    queue.add_after("a", 3)
    queue.add_after("a", 7)
    clock.advance(2.9)
    assert len(queue) == 0
    clock.advance(0.1)
    assert await take_all(queue) == ["a"]
    clock.advance(60)
    assert len(queue) == 0


async def test_failures_wait_longer_and_longer_each_key_by_itself(queue):
    assert [queue.retry("poison") for _ in range(13)] == [
        pytest.approx(wait) for wait in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 300, 300)
    ]
    assert queue.retry("other") == pytest.approx(0.2)
    queue.forget("poison")
    assert queue.retry("poison") == pytest.approx(0.2)


async def test_a_poisoned_key_delays_nobody(queue, clock):
    for _ in range(5):
        queue.retry("poison")
    queue.add("good")
    assert await take_all(queue) == ["good"]
    clock.advance(400)
    assert await take_all(queue) == ["poison"]


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_only_shortens(chance):
    backoff = Backoff()
    for failures in range(1, 40):
        full = backoff.delay(failures, 0.0)
        assert 0.8 * full <= backoff.delay(failures, chance) <= full <= 300


async def test_metrics_have_client_gos_names(queue, clock, registry):
    labels = {"name": "llmdeployment"}
    queue.add("a")
    queue.add("b")
    assert registry.get_sample_value("workqueue_depth", labels) == 2
    clock.advance(2)
    key = await queue.get()
    clock.advance(3)
    queue.done(key)
    queue.retry(key)
    assert registry.get_sample_value("workqueue_depth", labels) == 1
    assert registry.get_sample_value("workqueue_adds_total", labels) == 2
    assert registry.get_sample_value("workqueue_retries_total", labels) == 1
    assert registry.get_sample_value("workqueue_queue_duration_seconds_sum", labels) == 2
    assert registry.get_sample_value("workqueue_work_duration_seconds_sum", labels) == 3
