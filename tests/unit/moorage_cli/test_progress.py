"""What `moor rollout status` and `moor top` show."""

import json
from datetime import UTC, datetime

import pytest

from moorage_cli import progress, top, watching
from moorage_cli.paint import Paint, bar

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_picture_of_a_canary(canary):
    assert progress.view(canary, NOW, Paint()) == [
        "team-a/chat  Canary step 1 of 3  RollingOut",
        "  r6   stable    ███████████████████░  95 %  2/2 ready  2 routable",
        "  r7   candidate █░░░░░░░░░░░░░░░░░░░   5 %  1/1 ready  1 routable",
        "  GateHolding: ErrorRate: 41 of 100 requests seen",
        "  holds for another 2m10s",
        "  the next replica: LoadingWeights, ready in about 12s",
        "  Revision 7: ErrorRate: 41 of 100 requests seen. Revision 6 goes on with 2 replicas.",
        "  decisions (UTC)",
        "    11:58:00  Weight   r6: 100 % -> r6: 95 %, r7: 5 %: step 1 of 3",
    ]


def test_the_same_in_one_line_for_logs(canary):
    assert progress.summary(canary) == (
        "chat  Canary step 1 of 3  r6 95 %, r7 5 %  RollingOut: Revision 7: ErrorRate: 41 of 100 requests seen. "
        "Revision 6 goes on with 2 replicas."
    )


def test_a_long_sentence_is_broken_at_the_width_of_the_terminal(canary):
    lines = progress.view(canary, NOW, Paint(), width=60)
    assert lines[6:8] == [
        "  Revision 7: ErrorRate: 41 of 100 requests seen. Revision 6",
        "  goes on with 2 replicas.",
    ]


def test_colours_change_no_word(canary):
    plain, coloured = (progress.view(canary, NOW, Paint(colour)) for colour in (False, True))
    stripped = [_without_colour(line) for line in coloured]
    assert stripped == plain
    assert coloured != plain


def _without_colour(line):
    parts = line.split("\x1b[")
    return parts[0] + "".join(part.split("m", 1)[1] for part in parts[1:])


def test_a_failed_revision_says_why(ended):
    row = {"number": 7, "role": "failed", "weight": 0, "replicas": 0, "reason": "GateFailed"}
    lines = progress.view(ended("RolledBack", stalled="True", revisions=[row]), NOW, Paint())
    assert "  r7   failed    ░░░░░░░░░░░░░░░░░░░░   0 %  0/0 ready  0 routable  GateFailed" in lines


@pytest.mark.parametrize(
    ("reason", "ready", "stalled", "done"),
    [
        ("Serving", "True", "False", True),
        ("ScaledToZero", "True", "False", True),
        ("ScaledToZero", "Unknown", "False", None),
        ("RolledBack", "False", "True", False),
        ("InvalidSpec", "False", "True", False),
        ("Paused", "Unknown", "False", None),
        ("WaitingForGPU", "False", "False", None),
    ],
)
def test_when_it_is_over(ended, reason, ready, stalled, done):
    found = progress.outcome(ended(reason, ready, stalled))
    assert (found.done, found.reason) == (done, reason)


def test_an_edit_that_the_operator_has_not_seen_is_not_over(ended):
    edited = ended("Serving", ready="True")
    edited["metadata"]["generation"] = 3
    assert progress.outcome(edited) == progress.Outcome(
        None, "NotSeenYet", "the operator has not seen generation 3 yet"
    )


def test_an_object_without_status_can_be_shown():
    bare = {"metadata": {"name": "chat", "namespace": "team-a", "generation": 1}}
    assert progress.view(bare, NOW, Paint()) == [
        "team-a/chat  NotSeenYet",
        "  the operator has not seen generation 1 yet",
    ]


@pytest.mark.parametrize(("percent", "filled"), [(0, 0), (1, 1), (5, 1), (50, 10), (99, 19), (100, 20)])
def test_a_bar_is_full_only_at_100_and_empty_only_at_0(percent, filled):
    assert bar(percent) == "█" * filled + "░" * (20 - filled)


@pytest.mark.parametrize(("span", "text"), [(-3, "0s"), (119, "119s"), (120, "2m"), (310, "5m10s")])
def test_spans_of_time(span, text):
    assert progress.seconds(span) == text


def test_top_shows_the_busiest_first_and_a_dash_for_what_is_unknown(canary):
    idle = {"metadata": {"name": "idle", "namespace": "team-b"}}
    assert top.rows([idle, canary]) == [
        "NAMESPACE   NAME   REVISION   READY   GPU%   GPUMEM%   WATTS   TOK/S   RUN   WAIT   STATUS       AS OF",
        "team-a      chat   6          2/2     -      -         -       310     5     0      RollingOut   11:59:00",
        "team-b      idle   -          -       -      -         -       -       -     -      -            -",
    ]


@pytest.mark.parametrize("indent", [None, 4])
def test_the_objects_of_a_watch_are_told_apart(indent):
    events = [{"type": "ADDED", "object": {"a": {"b": [{"c": "}\n}"}]}}}, {"type": "DELETED", "object": {}}]
    text = "".join(json.dumps(event, indent=indent) + "\n" for event in events)
    assert list(watching.documents(iter(text.splitlines(keepends=True)))) == events
