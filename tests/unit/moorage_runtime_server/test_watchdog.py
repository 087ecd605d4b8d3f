from moorage_runtime.server.watchdog import Watchdog


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def watch(watchdog, clock, seconds, *, has_work=True, step=1.0):
    """Look once per `step` for so many seconds; the last verdict."""
    verdict = "ok"
    for _ in range(round(seconds / step)):
        clock.now += step
        verdict = watchdog.look(has_work=has_work)
    return verdict


def test_a_minute_of_silence_is_stuck_and_two_are_lost():
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    assert watch(watchdog, clock, 59) == "ok"
    assert watch(watchdog, clock, 1) == "stuck"
    assert watch(watchdog, clock, 59) == "stuck"
    assert watch(watchdog, clock, 1) == "lost"


def test_steps_end_the_silence():
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    assert watch(watchdog, clock, 100) == "stuck"
    watchdog.stepped(0.1)
    assert watch(watchdog, clock, 59) == "ok"


def test_slow_steps_buy_patience():
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    watchdog.stepped(20.0)
    watchdog.stepped(0.1)
    assert watchdog.patience == 100
    assert watch(watchdog, clock, 99) == "ok"
    assert watch(watchdog, clock, 1) == "stuck"


def test_no_work_is_no_silence():
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    assert watch(watchdog, clock, 300, has_work=False) == "ok"
    assert watch(watchdog, clock, 59) == "ok"


def test_the_time_in_which_this_process_was_stopped_is_not_the_engines_fault():
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    assert watch(watchdog, clock, 30) == "ok"
    clock.now += 600
    assert watchdog.look(has_work=True) == "ok"
    assert watchdog.silence == 32
