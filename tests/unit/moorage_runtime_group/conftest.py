"""Groups whose ranks are threads of this process, over real streams."""

import contextlib
import socket
import threading

import msgspec
import pytest

from moorage_runtime.group.fingerprint import Fingerprint
from moorage_runtime.group.follower import Follower
from moorage_runtime.group.leader import Leader
from moorage_runtime.group.messages import PROTOCOL, Hello
from moorage_runtime.group.place import LOOPBACK, Address, Place
from moorage_runtime.group.siblings import Siblings
from moorage_runtime.group.wire import listen

DEADLINE_S = 30
OWN = Hello(PROTOCOL, ranks=3, rank=0, model=Fingerprint("m"), computing="bfloat16", port=0)


class Kit:
    """What the tests of this folder share."""

    deadline = DEADLINE_S
    own = OWN

    @staticmethod
    def hello(rank, **changed):
        return msgspec.structs.replace(OWN, rank=rank, **changed)

    @staticmethod
    def free_port():
        with listen(LOOPBACK, 0) as probe:
            return probe.getsockname()[1]

    @staticmethod
    def nobody():
        """Where nobody listens."""
        return Address(LOOPBACK, Kit.free_port())

    @staticmethod
    @contextlib.contextmanager
    def on_thread(what, *arguments):
        """It has ended when the block has."""
        thread = threading.Thread(target=what, args=arguments)
        thread.start()
        try:
            yield
        finally:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def kit():
    return Kit


class Group:
    """A leader and its followers, who have met."""

    def __init__(self, ranks, *, in_one_pod):
        local = ranks if in_one_pod else 1
        port = 0 if in_one_pod else Kit.free_port()
        self.leader = Leader(Place(ranks, 0, local, Address(LOOPBACK, port)), Siblings())
        own = msgspec.structs.replace(OWN, ranks=ranks)
        self.ended = False
        followers, links = {}, {}

        def follow(rank):
            hello = msgspec.structs.replace(own, rank=rank)
            followers[rank] = Follower.join(self.leader.address, hello, streams=not in_one_pod)
            links[rank] = followers[rank].links(lambda: None, local_ranks=local, memory=self.leader.memory)

        threads = [threading.Thread(target=follow, args=(rank,)) for rank in range(1, ranks)]
        for thread in threads:
            thread.start()
        links[0] = self.leader.gather(own, lambda _missing: None, DEADLINE_S)
        for thread in threads:
            thread.join(DEADLINE_S)
        self.followers = [followers[rank] for rank in range(1, ranks)]
        self.links = [links[rank] for rank in range(ranks)]

    def lose(self, rank):
        """As if the process was killed."""
        self.followers[rank - 1]._wire.close()
        self.close_streams(self.links[rank])

    def end(self):
        """The leader's end, if it has not come yet."""
        if not self.ended:
            self.ended = True
            self.leader.__exit__(None, None, None)

    @contextlib.contextmanager
    def leading(self):
        """The leader's `with`."""
        self.ended = True
        with self.leader:
            yield self.leader

    @staticmethod
    def close_streams(links):
        for stream in links.streams:
            if stream is not None:
                stream.close()

    def close(self):
        self.end()
        for follower in self.followers:
            follower._wire.close()
        for links in self.links:
            self.close_streams(links)


@pytest.fixture
def together():
    made = []

    def make(ranks, *, in_one_pod=False):
        made.append(Group(ranks, in_one_pod=in_one_pod))
        return made[-1]

    yield make
    for group in made:
        group.close()


@pytest.fixture
def pair():
    """Two ends of a stream over TCP."""
    opened = []

    def make():
        with listen(LOOPBACK, 0) as listener:
            ours = socket.create_connection(listener.getsockname()[:2])
            theirs = listener.accept()[0]
        opened.extend((ours, theirs))
        return ours, theirs

    yield make
    for stream in opened:
        stream.close()
