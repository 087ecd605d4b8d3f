"""How the API server is known, as it says itself."""

import pytest

from moorage_gateway.front_proxy import FrontProxy, Trust, read

PEM = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"
CONFIG = {"requestheader-client-ca-file": PEM, "requestheader-allowed-names": '["front-proxy", "aggregator"]'}


def config_map(**data):
    return {"metadata": {"name": "extension-apiserver-authentication"}, "data": data}


def peer(name):
    return {"subject": ((("organizationName", "front-proxy"),), (("commonName", name),))}


def test_it_is_read_as_the_api_server_writes_it():
    assert read(config_map(**CONFIG)) == FrontProxy(PEM, frozenset({"front-proxy", "aggregator"}))
    assert read(config_map(**CONFIG | {"requestheader-allowed-names": "[]"})) == FrontProxy(PEM, frozenset())
    assert read(config_map(**{"client-ca-file": PEM})) is None  # no aggregation is set up
    assert read({"metadata": {}}) is None


def test_only_who_has_one_of_the_names_is_admitted():
    some, any_name = FrontProxy(PEM, frozenset({"front-proxy"})), FrontProxy(PEM, frozenset())
    assert some.admits(peer("front-proxy"))
    assert not some.admits(peer("kubelet"))
    assert any_name.admits(peer("kubelet"))
    for nobody in (None, {}):  # has shown no certificate, or one that nobody has verified
        assert not some.admits(nobody)
        assert not any_name.admits(nobody)


def test_changes_are_told_and_nothing_else_is():
    trust = Trust()
    told = trust.changes.next
    trust.replace([config_map(**CONFIG)])
    assert told.is_set()
    assert trust.now == read(config_map(**CONFIG))
    told = trust.changes.next
    trust.put(config_map(**CONFIG, other="x"))
    assert not told.is_set()
    trust.put(config_map(**CONFIG | {"requestheader-allowed-names": "[]"}))
    assert told.is_set()
    trust.remove(config_map(**CONFIG))
    assert trust.now is None


@pytest.mark.parametrize("names", ["{", '"front-proxy"x', "5"])
def test_what_makes_no_sense_admits_nobody(names, caplog):
    trust = Trust()
    trust.put(config_map(**CONFIG))
    trust.put(config_map(**CONFIG | {"requestheader-allowed-names": names}))
    assert trust.now is None
    assert "make no sense" in caplog.text
