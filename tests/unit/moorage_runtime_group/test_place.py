"""Who is where in a group, from flags and from the variables of LeaderWorkerSet."""

import pytest

from moorage_runtime.group.place import DEFAULT_PORT, Address, Place, PlaceError, place_of

ALONE = "--rank and --leader-address are for ranks in several pods"
LEADER = Address("chat-0.chat", DEFAULT_PORT)


def lws(size, index, leader="chat-0.chat"):
    return {"LWS_GROUP_SIZE": str(size), "LWS_WORKER_INDEX": str(index), "LWS_LEADER_ADDRESS": leader}


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ((1, None, None, None, {}), None),
        ((1, 1, None, None, lws(1, 0)), None),
        ((3, None, None, None, {}), Place(3, 0, 3, Address("127.0.0.1", 0))),
        ((2, None, None, None, lws(2, 0)), Place(2, 0, 1, LEADER)),
        ((2, None, None, None, lws(2, 1)), Place(2, 1, 1, LEADER)),
        ((4, None, None, None, lws(2, 1)), Place(4, 2, 2, LEADER)),
        ((4, 2, 2, "chat-0.chat", {}), Place(4, 2, 2, LEADER)),
        ((2, 2, 1, "10.0.0.7:9000", lws(2, 0)), Place(2, 1, 1, Address("10.0.0.7", 9000))),
        ((2, 2, None, "[::1]:9000", {}), Place(2, 0, 1, Address("::1", 9000))),
    ],
)
def test_flags_go_before_variables(asked, place):
    assert place_of(*asked) == place


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((3, 2, None, "a", {}), "3 ranks cannot be divided equally between 2 pods"),
        ((1, None, None, None, lws(2, 0)), "1 rank cannot be divided equally between 2 pods"),
        ((4, 2, 1, "a", {}), "rank 1 is not the first one of a pod: with 2 in each those are 0, 2"),
        ((2, 2, 2, "a", {}), "rank 2 is not the first one of a pod: with 1 in each those are 0, 1"),
        ((2, None, 1, None, {}), ALONE),
        ((1, None, 1, "chat-0.chat", {}), ALONE),
        ((1, None, None, "chat-0.chat", {}), ALONE),
        ((2, 1, None, "chat-0.chat", {}), ALONE),
        ((2, 1, 0, None, {}), ALONE),
        ((2, 2, 1, None, {}), "ranks in several pods need the leader's address"),
        ((2, None, None, None, lws(2, "one")), "LWS_WORKER_INDEX is 'one'; it must be a whole number"),
        ((2, None, None, None, lws(2, 1, "host:port")), "'host:port' is no HOST or HOST:PORT"),
        ((2, None, None, None, lws(2, 1, "host:65536")), "'host:65536' is no HOST or HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_told(asked, why):
    with pytest.raises(PlaceError, match=why.replace("(", r"\(")):
        place_of(*asked)


@pytest.mark.parametrize("text", ["chat-0.chat:8010", "10.0.0.7:1", "[fe80::1]:9000"])
def test_an_address_reads_as_it_is_written(text):
    assert str(Address.parse(text)) == text


def test_an_address_without_a_port_has_the_default_one():
    assert Address.parse("fe80::1") == Address("fe80::1", DEFAULT_PORT)
    assert Address.parse("[fe80::1]") == Address("fe80::1", DEFAULT_PORT)
