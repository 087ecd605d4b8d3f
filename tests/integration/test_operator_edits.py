"""What comes of many edits, made faster than they can be followed: the same as of the last one alone.

MOORAGE_EDITS says how many.
"""

import copy
import os
import random

import pytest

from tests.integration.api_kit import NOT_FOUND, RefusedError
from tests.integration.desired import at_rest, made_of

EDITS = int(os.environ.get("MOORAGE_EDITS") or 400)
OBJECTS, ROUNDS = 20, 5
IMAGES = ("engine:1", "engine:2", "engine:3")
ROLLOUTS = (
    {},
    {"maxSurge": 1, "maxUnavailable": 0},
    {"maxSurge": 0, "maxUnavailable": 1},
    {"strategy": "BlueGreen"},
)
PARTS = ("type", "status", "reason", "message", "lastTransitionTime")


class Person:
    """Edits at random, always the same ones."""

    def __init__(self, world):
        self.world, self.chance, self.edits = world, random.Random(1), 0
        self.wanted = {f"model-{n:02}": {"replicas": 1, "engine": {"image": IMAGES[0]}} for n in range(OBJECTS)}

    def begin(self):
        self.world.api.together([self.world.request(*one) for one in self.wanted.items()])

    def edit_all(self):
        """One edit of each object, all at once; now and then an object is replaced, or loses a child."""
        for name, spec in self.wanted.items():
            self._edit(spec)
            if self.chance.random() < 0.02:
                self.world.delete("llmdeployments", name)
            elif self.chance.random() < 0.05:
                self._take_away("services", name)
        self._ask()

    def want_some(self):
        """Without replicas nothing is proven, so what is on trial stays so: in the end each object has some."""
        for spec in self.wanted.values():
            spec["replicas"] = max(1, spec["replicas"])
        self._ask()

    def _ask(self):
        self.world.api.together([self.world.request(*one) for one in self.wanted.items()])
        self.edits += len(self.wanted)

    def _edit(self, spec):
        what = self.chance.choice(("image", "image", "env", "replicas", "replicas", "rollout"))
        if what == "image":
            spec["engine"] = {**spec["engine"], "image": self.chance.choice(IMAGES)}
        elif what == "env":
            spec["engine"] = {**spec["engine"], "env": [{"name": "MODE", "value": self.chance.choice("ab")}]}
        elif what == "replicas":
            spec["replicas"] = self.chance.choice((0, 1, 1, 2, 3))
        else:
            spec["rollout"] = copy.deepcopy(self.chance.choice(ROLLOUTS))

    def _take_away(self, plural, name):
        try:
            self.world.delete(plural, name)
        except RefusedError as error:
            assert error.status == NOT_FOUND  # noqa: PT017 - there is none at this moment


def honest(one):
    """What is wrong with what a status says, in any version that was ever seen of it; None when nothing is."""
    meta, status = one["metadata"], one.get("status", {})
    for condition in status.get("conditions", ()):
        missing = [part for part in PARTS if not condition.get(part)]
        if missing or not 0 < condition.get("observedGeneration", 0) <= meta["generation"]:
            return f"{meta['name']}: {condition}"
    return _ready_in_vain(one) if status else None


def _ready_in_vain(one):
    """Ready at this generation, though something else serves than it asks for."""
    spec, status, generation = one["spec"], one["status"], one["metadata"]["generation"]
    ready = next((each for each in status.get("conditions", ()) if each["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True" or ready["observedGeneration"] != generation:
        return None
    pointers = status.get("revision", {})
    images = {row["number"]: row["image"] for row in status.get("revisions", ())}
    serves = images.get(pointers.get("stable")) == spec["engine"]["image"]
    good = serves and "candidate" not in pointers and status.get("readyReplicas", 0) >= spec["replicas"]
    return None if good else f"{one['metadata']['name']}: Ready at generation {generation}: {status}"


@pytest.fixture(scope="module")
def world(new_world, slow_faults):
    with new_world(check=honest) as world:
        yield world


@pytest.fixture(scope="module")
def edited(world):
    """All objects after all edits, at rest; it was so after each fifth of them, too."""
    person, seconds = Person(world), []
    person.begin()
    for _ in range(ROUNDS):
        for _ in range(EDITS // (OBJECTS * ROUNDS) - 1):
            person.edit_all()
        person.want_some()
        seconds.append(at_rest(world, person.wanted))
    return person, seconds


def test_r1_after_random_edits_the_children_are_what_is_asked_for(edited, world, bar):
    person, seconds = edited
    writes = world.settled()
    bar("R1", edits=person.edits, objects=OBJECTS, writes=writes, at_rest_within_seconds=max(seconds))
    assert world.died() == []


def test_r2_the_way_leaves_no_trace(edited, world, bar):
    """Each of them has the children of a new object with the same spec."""
    person, _ = edited
    twins = {name.replace("model", "twin"): spec for name, spec in person.wanted.items()}
    world.api.together([world.request(*one) for one in twins.items()])
    at_rest(world, {**person.wanted, **twins})
    different = 0
    for name in person.wanted:
        twin = name.replace("model", "twin")
        if (mine := made_of(name, world.children(name))) != (new := made_of(twin, world.children(twin))):
            different += 1
            print(f"{name}\n{mine}\n{twin}\n{new}")  # noqa: T201 - shown when it fails
    bar("R2", compared=len(twins), different=different)
    assert different == 0


def test_r19_no_status_ever_says_more_than_is_so(edited, world, bar):
    bar("R19", versions=world.sight.count, wrong=len(world.sight.wrong))
    assert world.sight.count > EDITS
    assert world.sight.wrong == []
