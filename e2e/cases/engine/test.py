"""What spec.engine says is what the engine does; when it dies, everyone who waits is told, and it comes back."""

import json

import pytest

WORKERS = 4
LONG = 200  # tokens: seconds, so that all are under way when the engine dies

ENGINE = """
import pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    command = (folder / "cmdline").read_bytes().decode().split("\\0")
    if "moorage_runtime.model.process" in command:
        engine = int(folder.name), command
"""


@pytest.fixture(scope="module")
def chat(kit):
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return f"{kit.namespace}/chat"


def test_the_policy_of_the_resource_reaches_the_engine(kit, chat):
    command = json.loads(_in_server(kit, f"{ENGINE}\nimport json; print(json.dumps(engine[1]))"))
    assert command[command.index("--scheduling-policy") + 1] == "MLFQ"


def test_an_engine_that_is_killed_tells_everyone_who_waits_and_comes_back(kit, chat):
    with kit.load(chat, workers=WORKERS, tokens=LONG) as load:
        # No more are computed together than maxRunning says.
        kit.eventually(lambda: _telemetry(kit), lambda seen: (seen["running"], seen["waiting"]) == (2, 2))
        _in_server(kit, f"{ENGINE}\nimport os, signal; os.kill(engine[0], signal.SIGKILL)")
        kit.eventually(load.failures, lambda lost: len(lost) >= WORKERS, 30)
    lost = load.failures()[:WORKERS]
    assert all("The engine was killed by SIGKILL." in record.error for record in lost), lost
    # The client makes an APIError of an event in an open stream, and another kind of error of a status.
    assert any(record.error.startswith("APIError: ") for record in lost), lost
    server = kit.eventually(lambda: _server(kit), lambda server: server["restartCount"] == 1 and server["ready"])
    assert json.loads(server["lastState"]["terminated"]["message"]) == {
        "error": "The engine was killed by SIGKILL.",
        "reason": "EngineFailed",
    }
    kit.wait_ready("chat")
    assert "harbour" in "".join(kit.ask(chat, stream=True)["pieces"])


def _in_server(kit, program):
    """Run Python in the server's container."""
    pod = _pod(kit)["metadata"]["name"]
    return kit.kubectl("exec", pod, "--container=server", "--", "python3", "-c", program)


def _telemetry(kit):
    url = "http://127.0.0.1:8000/telemetry"
    return json.loads(_in_server(kit, f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"))


def _pod(kit):
    (pod,) = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    return pod


def _server(kit):
    return _pod(kit)["status"]["containerStatuses"][0]
