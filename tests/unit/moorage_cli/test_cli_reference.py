"""docs/cli.md and docs/gitops.md say what is there."""

from moorage_cli.main import parser
from moorage_cli.reference import cli_reference
from moorage_operator.plan.actions import VERBS


def test_the_page_is_what_the_parser_says(checkout):
    assert (checkout / "docs" / "cli.md").read_text() == cli_reference(), "stale: make crd"


def test_every_verb_of_the_help_is_on_it():
    page = cli_reference()
    for verb in ("plan", "history", "diff", "rollback", "chat", "top", "doctor", "crd", "rollout status"):
        assert f"## moor {verb}\n" in page
        assert verb.split()[0] in parser().format_help()
    for verb in VERBS:
        assert f"## moor rollout {verb}\n" in page


def test_gitops_names_the_files_that_there_are(checkout):
    page = (checkout / "docs" / "gitops.md").read_text()
    for name in ("argocd/customizations.yaml", "argocd/application.yaml"):
        assert name in page
        assert (checkout / name).is_file()
    assert all(f"`{verb}`" in page for verb in VERBS)
