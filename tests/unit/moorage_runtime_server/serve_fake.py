"""The real server with the stand-in engine.

`serve_fake.py MODEL PORT_FILE TERMINATION_LOG MAX_WAITING [SERVER_OPTIONS…] ENGINE_ARGS…`; on SIGUSR1 it prints how
many tasks its event loop has.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from moorage_runtime.server.listener import STALL_SECONDS, listen
from moorage_runtime.server.model_card import load_card
from moorage_runtime.server.options import BODY_SECONDS, EngineOptions, Options
from moorage_runtime.server.server import Server
from moorage_runtime.server.watchdog import Watchdog


def parse(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("port_file", type=Path)
    parser.add_argument("termination_log", type=Path)
    parser.add_argument("max_waiting", type=int)
    parser.add_argument("--scheduling-policy")
    parser.add_argument("--request-timeout", type=float)
    parser.add_argument("--drain-seconds", type=float)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--stuck-seconds", type=float, default=60.0)
    parser.add_argument("--lost-factor", type=float, default=2.0)
    parser.add_argument("--body-seconds", type=float, default=BODY_SECONDS)
    parser.add_argument("--stall-seconds", type=float, default=STALL_SECONDS)
    return parser.parse_known_args(arguments)


async def serve(asked, engine):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: print("tasks:", len(asyncio.all_tasks()), flush=True))  # noqa: T201
    with listen("127.0.0.1", 0, asked.stall_seconds) as listener:
        options = Options(
            engine=EngineOptions(
                model=asked.model, max_running=4, scheduling_policy=asked.scheduling_policy, rank=asked.rank
            ),
            served_name="echo",
            max_waiting=asked.max_waiting,
            request_timeout=asked.request_timeout,
            drain_seconds=asked.drain_seconds,
            host="127.0.0.1",
            port=listener.getsockname()[1],
            max_body=1 << 20,
            body_seconds=asked.body_seconds,
            termination_log=asked.termination_log,
        )
        asked.port_file.write_text(str(options.port))
        command = [sys.executable, str(Path(__file__).with_name("fake_engine.py")), *engine]
        watchdog = Watchdog(
            least_seconds=asked.stuck_seconds,
            lost_factor=asked.lost_factor,
            look_seconds=min(1.0, asked.stuck_seconds / 5),
        )
        code = await Server(options, load_card(asked.model), command, watchdog).run(listener)
    print("torch loaded:", "torch" in sys.modules)  # noqa: T201 - read by a test
    return code


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(*parse(sys.argv[1:]))))
