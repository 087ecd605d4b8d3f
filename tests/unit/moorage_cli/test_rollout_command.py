"""How a rollout is watched, which revision an action means, and which rollback is refused."""

import io

import pytest

from moorage_cli import watching
from moorage_cli.errors import CommandError
from moorage_cli.main import main
from moorage_cli.rollback import previous, tracked_by_argo_cd
from moorage_cli.rollout import revision_for


@pytest.mark.parametrize("verb", ["promote", "abort", "pause", "resume"])
def test_steering_means_the_candidate(canary, verb):
    assert revision_for(verb, canary) == 7


def test_a_restart_means_the_revision_that_serves(canary):
    assert revision_for("restart", canary) == 6


def test_a_retry_means_the_revision_that_was_given_up(ended):
    rows = [{"number": 6, "role": "stable"}, {"number": 7, "role": "failed"}]
    assert revision_for("retry", ended("RolledBack", revisions=rows)) == 7


@pytest.mark.parametrize(
    ("verb", "said"),
    [("promote", "no rollout of chat is under way"), ("retry", "no revision of chat was given up")],
)
def test_what_could_have_no_effect_is_refused(ended, verb, said):
    with pytest.raises(CommandError, match=said):
        revision_for(verb, ended("Serving", ready="True"))


def test_a_first_revision_has_nothing_to_go_back_to_so_there_is_nothing_to_steer(canary):
    canary["status"]["revision"] = {"candidate": 1}
    with pytest.raises(CommandError, match="no rollout of chat is under way"):
        revision_for("abort", canary)
    with pytest.raises(CommandError, match="no revision of chat serves yet"):
        revision_for("restart", canary)


def test_what_spec_pauses_no_annotation_resumes(canary):
    canary["spec"]["rollout"] = {"paused": True}
    with pytest.raises(CommandError, match=r"spec\.rollout\.paused of chat is true"):
        revision_for("resume", canary)


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {"argocd.argoproj.io/tracking-id": "models:moorage.dev/LLMDeployment:team-a/chat"}},
        {"labels": {"argocd.argoproj.io/instance": "models"}},
        {"managedFields": [{"manager": "kubectl"}, {"manager": "argocd-controller"}]},
    ],
)
def test_argo_cd_is_recognised(canary, metadata):
    canary["metadata"].update(metadata)
    assert tracked_by_argo_cd(canary)


def test_helm_is_not_taken_for_argo_cd(canary):
    canary["metadata"].update(
        labels={"app.kubernetes.io/instance": "models"}, managedFields=[{"manager": "helm"}, {"manager": "moor"}]
    )
    assert not tracked_by_argo_cd(canary)


def test_without_a_revision_that_served_before_there_is_no_way_back():
    with pytest.raises(CommandError, match="no other revision has served before"):
        previous((), 1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def watched(monkeypatch):
    """`watched(*objects)`: the status command sees these, then nothing more."""

    def watch(*objects):
        monkeypatch.setattr(watching, "changes", lambda *_: iter(objects))

    return watch


def test_elsewhere_than_on_a_terminal_a_line_is_printed_for_what_is_new(watched, canary, ended, capsys):
    before = dict(canary, status=dict(canary["status"], conditions=[]))
    watched(before, None, before, ended("Serving", ready="True"))
    assert main(["rollout", "status", "chat"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "chat  Canary step 1 of 3  r6 95 %, r7 5 %  NotSeenYet: the operator has not seen generation 2 yet",
        "chat  r6 95 %, r7 5 %  Serving: what Serving means",
    ]


def test_a_rollout_that_was_given_up_ends_with_1_and_the_reason(watched, ended, capsys):
    watched(ended("RolledBack", stalled="True"))
    assert main(["rollout", "status", "chat"]) == 1
    assert capsys.readouterr().err == "moor: RolledBack: what RolledBack means\n"


def test_a_watch_that_takes_too_long_ends_with_1(watched, canary, capsys):
    watched(canary, None)
    assert main(["rollout", "status", "chat", "--timeout", "0"]) == 1
    assert "chat is not there yet after 0 s; RollingOut: " in capsys.readouterr().err


def test_on_a_terminal_the_picture_is_drawn_in_its_place(watched, canary, ended, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    first = dict(canary, status=dict(canary["status"], conditions=[]))
    watched(first, None, ended("Serving", ready="True", decisions=[], startup={}))
    assert main(["rollout", "status", "chat"]) == 0
    drawn = terminal.getvalue().split("\x1b[9F\x1b[J")
    assert len(drawn) == 3, "two pictures of nine lines were replaced"
    assert [one.count("\n") for one in drawn] == [9, 9, 4]


def test_ctrl_c_is_no_traceback(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "changes", interrupted)
    assert main(["rollout", "status", "chat"]) == 130
