"""Engines' processes through their sockets, as the API process uses them."""

import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from moorage_runtime.engine.messages import Step, decode_events, encode_commands

DEADLINE_S = 300


@contextmanager
def spawning(folder):
    """Starts engines' processes: `start(model, *arguments)`; all are killed at the end."""
    started = []

    def start(model, *arguments):
        own = folder / f"socket{len(started)}"
        own.mkdir()
        started.append(EngineProcess(own, model, *arguments))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


class EngineProcess:
    """The process, and the API process's end of its socket."""

    def __init__(self, folder, model, *arguments):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PAIR)
        address = f"ipc://{folder}/engine.sock"
        self.socket.bind(address)
        command = [sys.executable, "-m", "moorage_runtime.model.process", "--model", str(model), "--socket", address]
        self.process = subprocess.Popen([*command, "--max-running", "4", *arguments], stderr=subprocess.PIPE, text=True)

    def send(self, *commands):
        self.socket.send(encode_commands(list(commands)))

    def events(self):
        """Everything until the process has ended and all it sent is read."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if self.socket.poll(100):
                yield from decode_events(self.socket.recv())
            elif ended:
                return
        pytest.fail(f"the engine did not end within {DEADLINE_S} s")

    def until(self, kind):
        """The first event of that kind; everything before it is dropped."""
        return next(event for event in self.events() if isinstance(event, kind))

    def answers(self, count):
        """Outputs until so many requests have ended: {id: (tokens, finish reason, error)}, and the last stats."""
        tokens, ends = {}, {}
        for event in self.events():
            assert isinstance(event, Step), event
            for output in event.outputs:
                assert output.id not in ends
                tokens.setdefault(output.id, []).extend(output.token_ids)
                if output.finish_reason:
                    ends[output.id] = (tokens[output.id], output.finish_reason, output.error)
            if len(ends) == count:
                return ends, event.stats
        pytest.fail(f"the engine ended with {ends}")

    def exit_code(self):
        return self.process.wait(DEADLINE_S)

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.socket.close(0)
        self.context.term()


def children(pid):
    """Processes that it started and that run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def until_ended(pids):
    """Wait until none of them runs any longer."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], DEADLINE_S)[0], f"process {pid} outlived what it belongs to"
        finally:
            os.close(descriptor)
