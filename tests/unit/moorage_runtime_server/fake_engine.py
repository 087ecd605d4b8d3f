"""An engine process without a model: it answers with the prompt's own tokens, then the end token.

It speaks the engine's protocol over a real socket, so that the server under test is the real one. What it was sent goes
to `--log`, one JSON object a line, and at its end how many requests were submitted and how they ended. `--pace` seconds
pass between steps. Half the prompt of a request's first choice counts as found in the prefix cache, and nearly all of
the others'; each waited for `QUEUE_SECONDS`. The choice `--bad-choice` of every request ends with an error. With
`--nonsense-on-cancel` it answers a cancellation with what is no message.

Of a group it plays the leader, which on SIGUSR1 hears that another rank leaves, and on SIGUSR2 that one is lost, and
then cannot end; or, with `--joins`, rank 1 of 2, whose leader ends on SIGUSR1.
"""

import argparse
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

from moorage_runtime.engine import messages as m

QUEUE_SECONDS = 0.25


@dataclass
class Sequence:
    submit: m.Submit
    generated: int = 0
    ended: bool = False
    arrived: float = field(default_factory=time.monotonic)
    bad: bool = False

    @property
    def late(self):
        return self.submit.timeout_seconds is not None and time.monotonic() > self.arrived + self.submit.timeout_seconds

    @property
    def cached(self):
        length = len(self.submit.prompt)
        return length // 2 if self.submit.id.endswith(".0") else length - 1

    def step(self) -> m.Output:
        if self.late or self.bad:
            self.ended = True
            reason = "error" if self.bad else "timeout"
            return m.Output(self.submit.id, [], None, reason, error="It was a bad one." if self.bad else "")
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
        if position:
            return m.Output(self.submit.id, [token], logprobs, reason)
        return m.Output(self.submit.id, [token], logprobs, reason, self.cached, queue_seconds=QUEUE_SECONDS)


class Engine:
    def __init__(self, socket, log, options):
        self.socket, self.log, self.options = socket, log, options
        self.totals = {"submit": 0}
        self.sequences = {}
        self.ending = False
        self.closed = []

    def command(self, command):
        self.log.write(json.dumps(msgspec.to_builtins(command)) + "\n")
        self.log.flush()
        match command:
            case m.Submit():
                self.totals["submit"] += 1
                bad = command.id.endswith(f".{self.options.bad_choice}")
                self.sequences[command.id] = Sequence(command, bad=bad)
            case m.Cancel(id=identifier):
                if self.options.nonsense_on_cancel:
                    self.socket.send(b"nonsense")
                if self.sequences.pop(identifier, None):
                    self.closed.append(m.Output(identifier, [], None, "abort"))
            case m.Shutdown():
                self.closed += [m.Output(identifier, [], None, "abort") for identifier in self.sequences]
                self.sequences.clear()
                self.ending = True

    def step(self):
        everyone = list(self.sequences.values())
        running = everyone[: self.options.max_running]
        running += [sequence for sequence in everyone[self.options.max_running :] if sequence.late]
        outputs = self.closed + [
            sequence.step() for sequence in running for _ in range(self.options.tokens_per_step) if not sequence.ended
        ]
        self.closed = []
        self.sequences = {key: value for key, value in self.sequences.items() if not value.ended}
        for output in outputs:
            if output.finish_reason:
                self.totals[output.finish_reason] = self.totals.get(output.finish_reason, 0) + 1
        if outputs:
            self.send(m.Step(outputs, self.stats(len(running))))

    def stats(self, running):
        waiting = max(0, len(self.sequences) - running)
        return m.Stats(running, waiting, 0.25, 100.0, 0.01, 3, running, 0)

    def leader_ends_or_follower_leaves(self, *_):
        if self.options.joins:
            self.ending = True
        else:
            self.send(m.FollowerLeaves(1))

    def loses_a_rank(self, *_):
        self.send(m.Failed("EngineFailed", "rank 2 is gone"))
        while True:
            time.sleep(3600)

    def write_totals(self):
        self.log.write(json.dumps(["totals", self.totals]) + "\n")

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
    parser.add_argument("--start-with", type=Path, help="the file that the engine waits for")
    parser.add_argument("--tokens-per-step", type=int, default=1)
    parser.add_argument("--bad-choice", type=int)
    parser.add_argument("--nonsense-on-cancel", action="store_true")
    parser.add_argument("--joins", action="store_true")
    parser.add_argument("--eos", type=int, default=256)
    options = parser.parse_args()
    context = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.connect(options.socket)
    with Path(options.log).open("a") as log:
        log.write(json.dumps(["pid", os.getpid()]) + "\n")
        log.flush()
        engine = Engine(socket, log, options)
        signal.signal(signal.SIGUSR1, engine.leader_ends_or_follower_leaves)
        signal.signal(signal.SIGUSR2, engine.loses_a_rank)
        code = serve(engine, options)
        engine.write_totals()
    socket.close(linger=1000)
    context.term()
    raise SystemExit(code)


def serve(engine, options):
    engine.send(m.Loading("LoadingWeights", 0.5, "Reading nothing at all."))
    if options.fail:
        engine.send(m.Failed(options.fail, "There is too little memory for this model: it needs 2 GiB and has 1."))
        return 1
    while options.start_with is not None and not options.start_with.exists():
        time.sleep(0.02)
    started = m.Started(
        "fake", 260, options.context_length, 4096, options.max_running, [options.eos], "float32", 1, "none", 0, 0.1
    )
    engine.send(m.Joined(1, 2) if options.joins else started)
    while not (engine.ending and not engine.sequences):
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
