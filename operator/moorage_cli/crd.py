"""`moor crd`: write everything that follows from the models: the CRD, the chart's copy of it, and the API reference."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from moorage_api.crd import NAME, custom_resource_definition
from moorage_api.names import PLURAL
from moorage_api.reference import api_reference
from moorage_cli.errors import CommandError

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_DESCRIPTION = """\
Write what follows from the models in moorage_api into a checkout of Moorage:
  crds/                              the CustomResourceDefinition, for kubectl apply
  charts/moorage/templates/crds/     the chart's copy
  docs/api-reference.md              the same for people
"""
_EPILOG = """\
examples:
  %(prog)s                           after a change of a model
  %(prog)s --check                   as a test does: exit status 1 when a file is stale
  %(prog)s --print | kubectl apply --server-side -f -
                                     install the CRD without a checkout or the chart
"""
_HEADER = "# Made by `moor crd` from moorage_api. Change the models, not this file.\n"


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "crd",
        help="write the CustomResourceDefinition and the API reference",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path(), help="the checkout; default: the current directory"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; say which files are stale")
    mode.add_argument("--print", action="store_true", help="write nothing; print the CustomResourceDefinition")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write, check or print."""
    if options.print:
        sys.stdout.write(crd_yaml())
        return 0
    if not (options.output / "charts" / "moorage").is_dir():
        raise CommandError(
            f"{options.output.resolve()} is no checkout of Moorage (it has no charts/moorage); "
            "go to one or name it with --output, or use --print"
        )
    stale = _stale(options.output)
    return _report(stale) if options.check else _write(options.output, stale)


def generated_files() -> Mapping[Path, str]:
    """Path in the checkout -> content, of every generated file."""
    manifest = crd_yaml()
    return {
        Path("crds") / f"{NAME}.yaml": manifest,
        Path("charts/moorage/templates/crds") / f"{PLURAL}.yaml": chart_template(manifest),
        Path("docs/api-reference.md"): api_reference(),
    }


def crd_yaml() -> str:
    """The CustomResourceDefinition as a file."""
    return _HEADER + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120, allow_unicode=True)


def chart_template(manifest: str) -> str:
    """The same as a Helm template: left out on request, and kept when the release goes, with every model in it."""
    if "{{" in manifest:
        raise ValueError("a description contains `{{`, which Helm would take for its own")
    kept = f"  name: {NAME}\n  annotations:\n    helm.sh/resource-policy: keep\n"
    return "{{- if .Values.crds.install }}\n" + manifest.replace(f"  name: {NAME}\n", kept, 1) + "{{- end }}\n"


def _stale(checkout: Path) -> dict[Path, str]:
    """The generated files that are missing or differ, with what they should contain."""
    return {
        checkout / path: content
        for path, content in generated_files().items()
        if not (checkout / path).is_file() or (checkout / path).read_text(encoding="utf-8") != content
    }


def _report(stale: Mapping[Path, str]) -> int:
    if stale:
        raise CommandError("stale, run `moor crd` and commit: " + ", ".join(str(path) for path in stale))
    print("crds, chart and API reference are up to date")
    return 0


def _write(checkout: Path, stale: Mapping[Path, str]) -> int:
    for path, content in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(f"wrote {path.relative_to(checkout)}")
    return 0
