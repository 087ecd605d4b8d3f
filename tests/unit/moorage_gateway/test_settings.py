"""Flags, environment and defaults."""

import dataclasses
from pathlib import Path

import pytest

from moorage_gateway import settings
from moorage_gateway.main import main
from moorage_gateway.settings import Settings


def test_defaults():
    assert settings.parse([], {}) == Settings()


def test_flags_come_before_the_environment():
    environ = {"MOORAGE_WATCH_NAMESPACE": "team-a", "MOORAGE_PUBLIC_PORT": "1", "MOORAGE_DRAIN_SECONDS": "7"}
    chosen = settings.parse(["--public-port", "2", "--kubeconfig", "k"], environ)
    assert chosen == Settings(watch_namespace="team-a", public_port=2, drain_seconds=7, kubeconfig=Path("k"))


def test_an_empty_variable_is_no_setting():
    assert settings.parse([], {"MOORAGE_PUBLIC_PORT": ""}) == Settings()


@pytest.mark.parametrize("variable", ["MOORAGE_PUBLIC_PORT", "MOORAGE_DRAIN_SECONDS", "MOORAGE_CONNECT_SECONDS"])
def test_a_bad_variable_is_a_usage_error_like_a_bad_flag(capsys, variable):
    with pytest.raises(SystemExit) as stopped:
        settings.parse([], {variable: "tcp://10.0.0.1:80"})
    assert stopped.value.code == 2
    flag = "--" + variable.removeprefix("MOORAGE_").lower().replace("_", "-")
    assert f"argument {flag}: invalid" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--hold-requests", "--hold-seconds", "--hold-stream-seconds", "--hold-mib"])
def test_a_request_that_does_not_wait_would_wake_nothing_so_some_always_do(capsys, flag):
    with pytest.raises(SystemExit) as stopped:
        settings.parse([flag, "0"], {})
    assert stopped.value.code == 2
    assert f"argument {flag}: invalid" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "environ"), [(["--log-level=LOUD"], {}), ([], {"MOORAGE_LOG_LEVEL": "LOUD"})])
def test_a_log_level_that_there_is_not_is_a_usage_error(capsys, argv, environ):
    with pytest.raises(SystemExit) as stopped:
        settings.parse(argv, environ)
    assert stopped.value.code == 2
    said = "error: argument --log-level: 'LOUD' is not one of DEBUG, INFO, WARNING, ERROR\n"
    assert capsys.readouterr().err.endswith(said)


def test_help_names_every_setting_its_variable_and_its_default(capsys):
    with pytest.raises(SystemExit) as stopped:
        settings.parse(["--help"], {})
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in text
        assert f"$MOORAGE_{field.name.upper()}" in text
        assert str(field.default or "none") in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no service account is mounted, and there is no file"),
        ("{", "is not YAML"),
        ("a: 1", "Expected key current-context"),
    ],
)
def test_without_a_usable_kubeconfig_it_says_so_and_exits(monkeypatch, tmp_path, content, message):
    kubeconfig = tmp_path / "config"
    if content is not None:
        kubeconfig.write_text(content)
    monkeypatch.setattr("sys.argv", ["moorage-gateway", "--kubeconfig", str(kubeconfig)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert str(stopped.value).startswith("moorage-gateway: no API server: ")
    assert message in str(stopped.value)
