import io
import shlex
import subprocess

from moorage_runtime.engine.messages import Started
from moorage_runtime.server.command_line import options_of, parser
from moorage_runtime.server.progress import Progress

OPTIONS = options_of(parser().parse_args(["serve", "/a/it's me"]))
ENGINE = Started("llama", 100, 512, 4096, 64, [1], "bfloat16", 2, "scalar", 0, 1.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_a_terminal_has_one_line_that_moves_and_then_what_to_type_next():
    out = Terminal()
    progress = Progress(out, Clock())
    progress.tick()
    progress.show("LoadingWeights", 0.5, "loading " + "x" * 300)
    progress.ready(ENGINE, OPTIONS, 8000, chats=True)
    progress.tick()
    text = out.getvalue()
    first, second, last = text.split("\r\x1b[2K")[1:]
    assert "starting the engine" in first
    assert second.startswith("█" * 12 + "░" * 12 + "  50%   2 s  loading xxx")
    assert len(second) < 80
    assert last.startswith("it's me is ready on http://127.0.0.1:8000/v1 after 3.0 s. Try: curl ")
    assert last.count("\n") == 1


def test_the_command_to_try_survives_a_shell():
    out = Terminal()
    Progress(out).ready(ENGINE, OPTIONS, 8000, chats=False)
    command = out.getvalue().partition("Try: ")[2].strip()
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines() == shlex.split(command)
    assert '{"model":"it\'s me","prompt":"Once upon a time"}' in words


def test_a_log_has_a_line_per_phase():
    out = io.StringIO()
    progress = Progress(out, Clock())
    for fraction in (0.0, 0.5, 1.0):
        progress.show("LoadingWeights", fraction, "loading weights")
        progress.tick()
    progress.show("WarmingUp", 0.0, "measuring a step")
    progress.ready(ENGINE, OPTIONS, 8000, chats=True)
    assert out.getvalue().splitlines() == [
        "LoadingWeights: loading weights",
        "WarmingUp: measuring a step",
        (
            "it's me is ready on http://127.0.0.1:8000/v1 after 8.0 s (llama, scalar, 2 threads, context 512 tokens, "
            "up to 64 at once, 4096 tokens in memory)"
        ),
    ]
