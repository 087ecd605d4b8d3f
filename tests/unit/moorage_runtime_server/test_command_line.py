import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from moorage_runtime.server.command_line import options_of, parser
from moorage_runtime.server.engine_process import describe_exit, engine_command
from moorage_runtime.server.main import main
from moorage_runtime.server.options import EngineOptions


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in text
    assert "tokens of prompt and answer together" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "the following arguments are required: MODEL"),
        (["serve", "m", "--max-running", "0"], "argument --max-running: must be at least 1, not 0"),
        (["serve", "m", "--max-running", "1025"], "argument --max-running: must be at most 1024, not 1025"),
        (["serve", "m", "--max-running", "some"], "argument --max-running: must be a whole number, not 'some'"),
        (["serve", "m", "--port", "65536"], "argument --port: must be from 0 to 65535, not 65536"),
        (["serve", "m", "--request-timeout", "nan"], "argument --request-timeout: must be a number above 0, not 'nan'"),
        (["serve", "m", "--dtype", "int3"], "invalid choice: 'int3' (choose from 'bfloat16', 'float16', 'float32')"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_taken_port_is_said_at_once(capsys, model_folder, echo):
    code = main(["serve", str(model_folder), "--host", "127.0.0.1", "--port", str(echo.port)])
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{echo.port}: Address already in use" in capsys.readouterr().err


def test_the_engines_command_line():
    command = engine_command(EngineOptions(model=Path("/model")))
    assert command[1:] == ["-m", "moorage_runtime.model.process", "--model", "/model", "--max-running", "64"]
    more = {
        "--max-running": "4",
        "--scheduling-policy": "MLFQ",
        "--context-length": "512",
        "--dtype": "float32",
        "--quantization": "Int8",
        "--device": "cuda",
        "--threads": "3",
        "--kv-tokens": "4096",
    }
    asked = options_of(parser().parse_args(["serve", "/model", *chain.from_iterable(more.items())]))
    said = engine_command(asked.engine)[5:]
    assert dict(zip(said[::2], said[1::2], strict=True)) == more


def test_exit_codes_in_words():
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(3) == "ended with exit code 3"


def test_orphans_are_reaped_and_the_engine_is_not():
    """In a process of its own, since it takes every exit code that it finds."""
    code = """
import os, subprocess, sys, time
from moorage_runtime.server.engine_process import reap_orphans
orphan = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, '-c', ''])
while True:
    found = os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    if found: break
reap_orphans(0)
try:
    os.waitpid(orphan, 0)
except ChildProcessError:
    print('reaped')
engine = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(7)'])
os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
reap_orphans(engine.pid)
print(engine.wait())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["reaped", "7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "; give a model's folder or a .gguf file (`moorage-fetch"),
        ("text", " is no model: give the folder that it is in, or a file that ends in .gguf"),
        ({}, "there is neither a tokenizer.json nor a GGUF file in "),
        ({"tokenizer.json": "{"}, "tokenizer.json cannot be read: "),
        ({"model.gguf": "no"}, "UnsupportedModel: "),
    ],
)
def test_what_is_no_model_is_told_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "model"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.mkdir()
        for name, text in content.items():
            (path / name).write_text(text)
    assert main(["serve", str(path), "--termination-log", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moorage-runtime: UnsupportedModel: ")
    assert message in line


@pytest.mark.parametrize(("path", "name"), [("/models/Qwen2.5-0.5B", "Qwen2.5-0.5B"), ("/m/small.q4.gguf", "small.q4")])
def test_a_model_is_served_under_its_own_name(path, name):
    assert options_of(parser().parse_args(["serve", path])).served_name == name


def test_the_engines_place_in_a_group():
    asked = parser().parse_args(["serve", "/model", "--tensor-parallel", "4"])
    names = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "chat-0.chat"}
    said = engine_command(options_of(asked, names).engine)
    assert said[said.index("--tensor-parallel") :] == [
        *("--tensor-parallel", "4", "--local-ranks", "2", "--rank", "2", "--leader-address", "chat-0.chat:8010")
    ]
    assert options_of(asked, names).engine.follows
    assert not options_of(asked).engine.follows


def test_ranks_that_do_not_go_together_are_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "m", "--tensor-parallel", "3", "--pods", "2"])
    assert exit_.value.code == 2
    assert "3 ranks cannot be divided equally between 2 pods" in capsys.readouterr().err
