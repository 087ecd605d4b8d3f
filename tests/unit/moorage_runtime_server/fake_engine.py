"""An engine process without a model: it answers with the prompt's own tokens, then the end token.

It speaks the engine's protocol over a real socket, so that the server under test is the real one. What it was sent goes
to `--log`, one JSON object a line. `--pace` seconds pass between steps.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

from moorage_runtime.engine import messages as m


@dataclass
class Sequence:
    submit: m.Submit
    generated: int = 0
    ended: bool = False
    tokens: list[int] = field(default_factory=list)

    def step(self) -> m.Output:
        position = self.generated
        self.generated += 1
        at_end = position >= len(self.submit.prompt)
        eos = self.submit.stop_token_ids[0] if self.submit.stop_token_ids else None
        token = eos if at_end and eos is not None else self.submit.prompt[position % len(self.submit.prompt)]
        reason = "stop" if token in self.submit.stop_token_ids else None
        if reason is None and self.generated >= self.submit.max_tokens:
            reason = "length"
        self.ended = reason is not None
        wanted = self.submit.sampling.logprobs
        logprobs = None
        if wanted is not None:
            logprobs = [m.TokenLogprobs(-0.5, [(token + offset, -0.5 - offset) for offset in range(wanted)])]
        return m.Output(self.submit.id, [token], logprobs, reason)


class Engine:
    def __init__(self, socket, log, max_running, tokens):
        self.socket, self.log, self.max_running, self.tokens = socket, log, max_running, tokens
        self.sequences = {}
        self.draining = False
        self.closed = []

    def command(self, command):
        self.log.write(json.dumps(msgspec.to_builtins(command)) + "\n")
        self.log.flush()
        match command:
            case m.Submit():
                self.sequences[command.id] = Sequence(command)
            case m.Cancel(id=identifier):
                if self.sequences.pop(identifier, None):
                    self.closed.append(m.Output(identifier, [], None, "abort"))
            case m.Drain():
                self.draining = True
            case m.Shutdown():
                self.closed += [m.Output(identifier, [], None, "abort") for identifier in self.sequences]
                self.sequences.clear()
                self.draining = True

    def step(self):
        running = list(self.sequences.values())[: self.max_running]
        outputs = self.closed + [
            sequence.step() for sequence in running for _ in range(self.tokens) if not sequence.ended
        ]
        self.closed = []
        self.sequences = {key: value for key, value in self.sequences.items() if not value.ended}
        if outputs:
            self.send(m.Step(outputs, self.stats(len(running))))

    def stats(self, running):
        waiting = max(0, len(self.sequences) - running)
        return m.Stats(running, waiting, 0.25, 100.0, 0.01, 3, running, 0)

    def send(self, *events):
        self.socket.send(m.encode_events(list(events)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--context-length", type=int, default=512)
    parser.add_argument("--max-running", type=int, default=4)
    parser.add_argument("--fail", default="")
    parser.add_argument("--start-after", type=float, default=0.0)
    parser.add_argument("--tokens-per-step", type=int, default=1)
    parser.add_argument("--eos", type=int, default=256)
    options = parser.parse_args()
    context = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.connect(options.socket)
    with Path(options.log).open("a") as log:
        log.write(json.dumps(["pid", os.getpid()]) + "\n")
        log.flush()
        code = serve(Engine(socket, log, options.max_running, options.tokens_per_step), options)
    socket.close(linger=1000)
    context.term()
    raise SystemExit(code)


def serve(engine, options):
    engine.send(m.Loading("LoadingWeights", 0.5, "Reading nothing at all."))
    if options.fail:
        engine.send(m.Failed(options.fail, "There is too little memory for this model: it needs 2 GiB and has 1."))
        return 1
    time.sleep(options.start_after)
    engine.send(
        m.Started(
            "fake", 260, options.context_length, 4096, options.max_running, [options.eos], "float32", 1, "none", 0, 0.1
        )
    )
    while not (engine.draining and not engine.sequences):
        timeout = 0 if engine.sequences else 1000
        while engine.socket.poll(timeout):
            for command in m.decode_commands(engine.socket.recv()):
                engine.command(command)
            timeout = 0
        engine.step()
        if options.pace:
            time.sleep(options.pace)
    return 0


if __name__ == "__main__":
    main()
