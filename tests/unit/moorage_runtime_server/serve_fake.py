"""The real server with the stand-in engine.

`serve_fake.py MODEL PORT_FILE TERMINATION_LOG MAX_WAITING ENGINE_ARGS…`
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from moorage_runtime.server.listener import listen
from moorage_runtime.server.model_card import load_card
from moorage_runtime.server.options import Options
from moorage_runtime.server.server import Server


async def serve(model, port_file, termination_log, max_waiting, engine):
    with listen("127.0.0.1", 0) as listener:
        options = Options(
            model=Path(model),
            served_name="echo",
            context_length=None,
            max_running=4,
            max_waiting=int(max_waiting),
            dtype=None,
            host="127.0.0.1",
            port=listener.getsockname()[1],
            max_body=1 << 20,
            termination_log=Path(termination_log),
        )
        Path(port_file).write_text(str(options.port))  # noqa: ASYNC240 - nothing else runs yet
        command = [sys.executable, str(Path(__file__).with_name("fake_engine.py")), *engine]
        code = await Server(options, load_card(Path(model)), command).run(listener)
    print("torch loaded:", "torch" in sys.modules)  # noqa: T201 - read by a test
    return code


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(*sys.argv[1:5], sys.argv[5:])))
