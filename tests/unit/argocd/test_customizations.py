"""What Argo CD makes of an LLMDeployment: its Lua, run by a real Lua 5.1 with only the libraries that Argo CD gives it.

The objects are what the operator's own plan reports.
"""

import copy

import pytest
import yaml
from lupa.lua51 import LuaRuntime, lua_type

from moorage_operator.plan import actions
from moorage_operator.plan.actions import VERBS

HEALTH = "resource.customizations.health.moorage.dev_LLMDeployment"
ACTIONS = "resource.customizations.actions.moorage.dev_LLMDeployment"
NOT_IN_ARGO_CD = ("string", "math", "io", "debug", "dofile", "loadfile")


@pytest.fixture(scope="module")
def data(checkout):
    return yaml.safe_load((checkout / "argocd" / "customizations.yaml").read_text())["data"]


@pytest.fixture(scope="module")
def menu(data):
    """The actions, as Argo CD reads them."""
    return yaml.safe_load(data[ACTIONS])


def run(script, obj):
    """Run a script with `obj`, and return what it returns as Python values."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in NOT_IN_ARGO_CD:
        lua.execute(f"{name} = nil; package.loaded.{name} = nil")
    lua.globals().obj = _to_lua(lua, obj)
    return _to_python(lua.execute(script))


def _to_lua(lua, value):
    if isinstance(value, dict):
        return lua.table_from({name: _to_lua(lua, one) for name, one in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, one) for one in value])
    return value


def _to_python(value):
    if lua_type(value) != "table":
        return value
    found = {key: _to_python(one) for key, one in value.items()}
    return list(found.values()) if found and list(found) == list(range(1, len(found) + 1)) else found


@pytest.mark.parametrize(
    ("moment", "status", "said"),
    [
        ("unseen", "Progressing", "The operator has not seen this generation yet."),
        ("edited", "Progressing", "The operator has not seen this generation yet."),
        ("serving", "Healthy", "Serving: "),
        ("scaled_to_zero", "Healthy", "ScaledToZero: "),
        ("starting", "Progressing", "Scheduling: "),
        ("rolling_out", "Progressing", "RollingOut: "),
        ("paused", "Suspended", "Paused: "),
        ("paused_by_spec", "Suspended", "Paused: "),
        ("aborted", "Degraded", "RolledBack: "),
        ("invalid", "Degraded", "InvalidSpec: "),
        ("no_such_revision", "Degraded", "RevisionNotFound: "),
        ("without_gateways", "Progressing", "GatewayUnreachable: "),
    ],
)
def test_health(data, recorded, moment, status, said):
    health = run(data[HEALTH], recorded(moment))
    assert health["status"] == status
    assert health["message"].startswith(said)


@pytest.mark.parametrize(
    ("moment", "enabled"),
    [
        ("unseen", set()),
        ("starting", set()),
        ("serving", {"restart"}),
        ("rolling_out", {"promote", "abort", "pause", "restart"}),
        ("paused", {"promote", "abort", "resume", "restart"}),
        ("paused_by_spec", {"promote", "abort", "restart"}),
        ("aborted", {"retry", "restart"}),
    ],
)
def test_which_actions_can_be_chosen(menu, recorded, moment, enabled):
    found = run(menu["discovery.lua"], recorded(moment))
    assert set(found) == set(VERBS)
    assert {name for name, one in found.items() if not one["disabled"]} == enabled


@pytest.mark.parametrize("verb", VERBS)
def test_an_action_writes_one_annotation_that_the_operator_understands(menu, recorded, verb):
    script = next(one["action.lua"] for one in menu["definitions"] if one["name"] == verb)
    before = recorded("aborted" if verb == "retry" else "rolling_out")
    after = run(script, copy.deepcopy(before))
    wish, misunderstood = actions.wish(after)
    assert misunderstood == ""
    assert (wish.verb, wish.number) == (verb, 1 if verb == "restart" else 2)
    del after["metadata"]["annotations"]["moorage.dev/action"]
    assert after["spec"] == before["spec"]
    assert after["status"] == before["status"]


def test_the_sample_tracks_only_what_git_has(checkout):
    application = yaml.safe_load((checkout / "argocd" / "application.yaml").read_text())
    assert application["kind"] == "Application"
    assert "ignoreDifferences" not in application["spec"]
