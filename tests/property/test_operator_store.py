"""The store in front of an API server that may lag behind: nothing that is known to have gone comes back.

Events come late, twice, in any order or not at all; lists are of any moment in the past.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, uid_of, version_of

KIND = "Deployment"


def there(store):
    return store.children(Key("n", "chat"))[KIND]


def versions(found):
    return {one["metadata"]["name"]: (uid_of(one), version_of(one)) for one in found}


class Cluster(RuleBasedStateMachine):
    """The truth by version, and what the store was told of it."""

    events = Bundle("events")

    def __init__(self):
        super().__init__()
        self.store = Store()
        self.states = [{}]  # what there is at each version, by name
        self.ends = {}  # uid -> the version at which it went
        self.told = 0  # the newest list
        self.told_ends = set()

    @property
    def now(self):
        return len(self.states) - 1

    def _becomes(self, name, uid):
        version = self.now + 1
        metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}
        one = {"kind": KIND, "metadata": {**metadata, "labels": {"moorage.dev/deployment": "chat"}}, "spec": version}
        self.states.append({**self.states[-1], name: one})
        return one

    def _goes(self, name):
        rest = dict(self.states[-1])
        one = rest.pop(name)
        self.states.append(rest)
        self.ends[one["metadata"]["uid"]] = self.now
        return {**one, "metadata": {**one["metadata"], "resourceVersion": str(self.now)}}

    @rule(target=events, name=st.sampled_from("abc"))
    def written(self, name):
        known = self.states[-1].get(name)
        uid = known["metadata"]["uid"] if known else f"{name}{self.now}"
        return "MODIFIED", self._becomes(name, uid)

    @rule(target=events, name=st.sampled_from("abc"))
    def deleted(self, name):
        if name not in self.states[-1]:
            return "MODIFIED", self._becomes(name, f"{name}{self.now}")
        return "DELETED", self._goes(name)

    @rule(name=st.sampled_from("abc"), on_their_way=st.integers(0, 2))
    def deleted_by_us(self, name, on_their_way):
        """As the writer does: of the version that is known, or not at all. Lists may have been made just before."""
        known, live = self.store.get(KIND, "n", name), self.states[-1].get(name)
        if known is None or live is None or versions([known]) != versions([live]):
            return
        self._goes(name)
        self.store.removed(known)
        self.told_ends.add(known["metadata"]["uid"])
        for _ in range(on_their_way):
            self._listed(self.now - 1)

    @rule(event=consumes(events), again=st.booleans())
    def told_of(self, event, again):
        kind, one = event
        for _ in range(1 + again):
            if kind == "DELETED":
                self.store.remove(one)
                self.told_ends.add(one["metadata"]["uid"])
            else:
                self.store.heard(one)

    @rule(back=st.integers(0, 6))
    def listed(self, back):
        self._listed(max(0, self.now - back))

    def _listed(self, version):
        self.store.merge(KIND, self.states[version].values(), version)
        self.told = max(self.told, version)

    @invariant()
    def nothing_comes_back(self):
        for one in there(self.store):
            uid = one["metadata"]["uid"]
            assert uid not in self.told_ends, "it was told that this one went"
            assert self.ends.get(uid, self.now + 1) > self.told, "a list of later did not have this one"

    def teardown(self):
        self.store.merge(KIND, self.states[-1].values(), self.now)
        assert versions(there(self.store)) == versions(self.states[-1].values())


Cluster.TestCase.settings = settings(max_examples=300, stateful_step_count=40)
TestStore = Cluster.TestCase
