"""`moor` and `moor crd`, run as a person runs them."""

import shutil

import pytest
import yaml

from moorage_api.crd import custom_resource_definition
from moorage_cli.crd import chart_template
from moorage_cli.main import main

GENERATED = [
    "crds/llmdeployments.moorage.dev.yaml",
    "charts/moorage/templates/crds/llmdeployments.yaml",
    "docs/api-reference.md",
]


@pytest.fixture
def empty_checkout(tmp_path):
    (tmp_path / "charts" / "moorage").mkdir(parents=True)
    return tmp_path


def test_what_is_committed_is_what_the_models_say(checkout, capsys):
    status = main(["crd", "--check", f"--output={checkout}"])
    assert status == 0, capsys.readouterr().err


def test_it_writes_every_generated_file_and_then_nothing_more(empty_checkout, capsys):
    assert main(["crd", f"--output={empty_checkout}"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {path}" for path in GENERATED]
    assert main(["crd", f"--output={empty_checkout}"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["crd", "--check", f"--output={empty_checkout}"]) == 0


@pytest.mark.parametrize("path", GENERATED)
def test_check_names_a_stale_file_and_leaves_it(empty_checkout, capsys, path):
    main(["crd", f"--output={empty_checkout}"])
    (empty_checkout / path).write_text("old")
    capsys.readouterr()
    assert main(["crd", "--check", f"--output={empty_checkout}"]) == 1
    assert capsys.readouterr().err == f"moor: stale, run `moor crd` and commit: {empty_checkout / path}\n"
    assert (empty_checkout / path).read_text() == "old"


def test_check_finds_a_missing_file(empty_checkout, capsys):
    main(["crd", f"--output={empty_checkout}"])
    shutil.rmtree(empty_checkout / "docs")
    assert main(["crd", "--check", f"--output={empty_checkout}"]) == 1
    assert "api-reference.md" in capsys.readouterr().err


def test_print_gives_the_manifest_for_kubectl(capsys):
    assert main(["crd", "--print"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == custom_resource_definition()


def test_elsewhere_it_writes_nothing_and_says_why(tmp_path, capsys):
    assert main(["crd", f"--output={tmp_path}"]) == 1
    assert "is no checkout of Moorage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_helm_would_take_double_braces_for_its_own():
    with pytest.raises(ValueError, match="Helm"):
        chart_template("description: '{{ .Values }}'\n")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for line in ("kubectl apply -f examples/quickstart.yaml", "kubectl explain llmdeployment.spec.model", "crd"):
        assert line in text


def test_the_plugin_of_kubectl_calls_itself_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-moor"])
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("kubectl moor ")


def test_wrong_usage_ends_with_two(capsys):
    with pytest.raises(SystemExit) as end:
        main(["crd", "--check", "--print"])
    assert end.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
