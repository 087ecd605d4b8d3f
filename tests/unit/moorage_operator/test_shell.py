"""Settings, health, and starting again what ended."""

import asyncio
import threading

import kopf
import pytest
from aiohttp.test_utils import TestClient, TestServer

from moorage_operator.shell.ear import Ear
from moorage_operator.shell.health import Pulse, application
from moorage_operator.shell.metrics import Metrics
from moorage_operator.shell.settings import read_settings
from moorage_operator.shell.supervisor import supervise


def test_a_flag_counts_more_than_the_environment_and_that_more_than_the_default():
    environment = {"MOORAGE_RUNTIME_IMAGE": "from-env:1", "MOORAGE_WATCH_NAMESPACE": "team", "MOORAGE_WORKERS": "3"}
    settings = read_settings(["--workers=5", "--namespace=team"], environment)
    assert settings.runtime_image == settings.context.runtime_image == "from-env:1"
    assert settings.watch_namespace == "team"
    assert settings.workers == 5
    assert settings.lease_name == "moorage-operator"
    assert read_settings(["--runtime-image=x"], {}).watch_namespace is None


@pytest.mark.parametrize(
    "wrong", ["--workers=many", "--misspelt", "--log-level=LOUD", "--watch-namespace=elsewhere", "--runtime-image"]
)
def test_a_wrong_flag_ends_the_program_with_help(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings(["--runtime-image=x", wrong], {})
    assert ended.value.code == 2
    assert "usage: moorage-operator" in capsys.readouterr().err


def test_a_wrong_variable_ends_the_program_as_a_wrong_flag_does(capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings(["--runtime-image=x"], {"MOORAGE_LOG_LEVEL": "LOUD"})
    assert ended.value.code == 2
    said = "error: argument --log-level: 'LOUD' is not one of DEBUG, INFO, WARNING, ERROR\n"
    assert capsys.readouterr().err.endswith(said)


def test_two_that_were_started_on_one_machine_have_different_identities(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    first, second = (read_settings(["--runtime-image=x"], {}).identity for _ in range(2))
    assert first != second
    assert first.startswith("host_")
    assert read_settings(["--runtime-image=x"], {"MOORAGE_IDENTITY": "pod-1"}).identity == "pod-1"


def test_the_image_has_to_be_named(capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings([], {})
    assert ended.value.code == 2
    assert "usage: moorage-operator" in capsys.readouterr().err


async def pages(pulse):
    async with TestClient(TestServer(application(pulse, Metrics().registry))) as client:
        return {path: (await client.get(path)).status for path in ("/healthz", "/readyz", "/metrics")}


async def test_silence_is_unhealthy_but_only_for_one_that_listens():
    now = 0.0
    pulse = Pulse(lambda: now)
    now = 1000.0
    assert (await pages(pulse))["/healthz"] == 200
    pulse.beat()
    now += 180
    assert (await pages(pulse))["/healthz"] == 200
    now += 1
    assert (await pages(pulse))["/healthz"] == 503


async def test_ready_when_said_so():
    pulse = Pulse(lambda: 0.0)
    assert (await pages(pulse))["/readyz"] == 503
    pulse.ready = True
    assert await pages(pulse) == {"/healthz": 200, "/readyz": 200, "/metrics": 200}


class BrokenError(Exception):
    pass


async def restarts(runs):
    """The waits between runs that last so many seconds each."""
    now, waits, left = 0.0, [], list(runs)

    async def work():
        nonlocal now
        if not left:
            raise asyncio.CancelledError
        now += left.pop(0)
        raise BrokenError

    async def sleep(seconds):
        waits.append(round(seconds, 3))

    async def restarted():
        pass

    with pytest.raises(asyncio.CancelledError):
        await supervise(
            work, failures=BrokenError, clock=lambda: now, sleep=sleep, chance=lambda: 0.0, restarted=restarted
        )
    return waits


async def test_what_ends_early_waits_longer_each_time_and_what_ran_well_starts_afresh():
    assert await restarts([1] * 8) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert await restarts([1, 1, 3600, 1]) == [0.5, 1, 0.5, 1]


async def test_the_ear_works_for_a_user_without_a_name(monkeypatch):
    """As in a container, whose user is a number: kopf would ask the user database for a name of its own."""

    def nameless():
        raise KeyError("getpwuid(): uid not found: 65532")

    asked = threading.Event()

    def login():
        asked.set()
        raise kopf.PermanentError("no cluster here")

    monkeypatch.setattr("getpass.getuser", nameless)
    ear = Ear(lambda *_: None, login=login, namespace=None, heartbeat="moorage-operator")
    listening = asyncio.create_task(ear.listen())
    came_to_login = asyncio.create_task(asyncio.to_thread(asked.wait, 30))
    await asyncio.wait({listening, came_to_login}, return_when=asyncio.FIRST_COMPLETED)
    assert not listening.done(), listening.exception()
    listening.cancel()
    await ear.closed()
    assert await came_to_login


def test_kopf_hears_and_never_writes():
    ear = Ear(lambda *_: None, login=lambda: None, namespace=None, heartbeat="moorage-operator")
    settings = ear.settings()
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True
    assert settings.scanning.disabled is True
    assert settings.watching.chunk_size == 200
    assert settings.queueing.idle_timeout <= 1, "it holds whole objects for so long"
    assert (settings.watching.server_timeout, settings.watching.client_timeout) == (240, 250)
    assert settings.networking.request_timeout == 30
    assert max(settings.networking.error_backoffs) <= 5, "once the API server is back, it is heard of soon"
    assert set(settings.watching.label_selectors.values()) == {"app.kubernetes.io/managed-by=moorage"}
    body = kopf.Body({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}})
    assert settings.persistence.diffbase_storage.build(body=body) == {}, "copies what nobody compares"
    registry = ear.registry(lambda *_: None)
    assert len(registry._watching.get_all_handlers()) == 7
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    assert not registry._indexing.get_all_handlers()


async def test_of_what_kopf_hears_only_what_is_kept_waits_for_the_leader():
    heard = []
    ear = Ear(lambda *_: None, login=lambda: None, namespace=None, heartbeat="moorage-operator")
    handler = ear.registry(lambda *event: heard.append(event))._watching.get_all_handlers()[0]
    pod = {"kind": "Pod", "metadata": {"name": "p", "managedFields": ["…"]}, "spec": {"containers": []}, "status": {}}
    await handler.fn(event={"type": None, "object": pod})
    assert heard == [("LISTED", {"kind": "Pod", "metadata": {"name": "p"}, "status": {}})]
