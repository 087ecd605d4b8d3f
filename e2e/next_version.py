"""The version that comes next, for tests of upgrades: this checkout's operator, chart and resource definition, edited.

It renders pods and workloads otherwise, and its resource definition has a further field with a default, which the API
server adds to every object that it reads from then on.
"""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("moorage_api", "moorage_operator")
ARCHIVE: Final = "next.zip"
FIELD: Final = "speculation"
"""The further field of spec.engine."""
HISTORY_LIMIT: Final = 1
"""What it writes to spec.revisionHistoryLimit of workloads: shows that it has looked at one."""
ENVIRONMENT: Final = "MOORAGE_NEXT"
"""A variable of every container that it renders."""

_FIELD: Final = f'''\
    {FIELD}: Literal["Off", "On"] = "Off"
    """Whether tokens are guessed before they are computed."""

'''
_VARIABLE: Final = f'{{"name": "{ENVIRONMENT}", "value": "1"}}'


@dataclass(frozen=True)
class _Edit:
    path: str
    old: str
    new: str

    def apply(self, folder: Path) -> None:
        text = (folder / self.path).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.path} has {self.old!r} not once: this module's edits are out of date")
        (folder / self.path).write_text(text.replace(self.old, self.new))


_POD: Final = "moorage_operator/render/pod.py"
_WORKLOAD: Final = "moorage_operator/render/workload.py"
_SCHEDULING: Final = "    scheduling: Scheduling = Scheduling()\n"
_LIMIT: Final = '"revisionHistoryLimit": '
_AFTER_IT: Final = ('            "strategy": ', '        "podManagementPolicy": ')
"""What comes next, in a Deployment and in a StatefulSet."""
_DEPLOYMENT: Final = "charts/moorage/templates/operator/deployment.yaml"
_ENV: Final = "          env:\n"
_MOUNT: Final = "            - {name: tmp, mountPath: /tmp}\n"
_VOLUME: Final = "          emptyDir: {sizeLimit: 64Mi}\n"
_EDITS: Final = (
    _Edit("moorage_api/llmdeployment.py", _SCHEDULING, _FIELD + _SCHEDULING),
    _Edit(_POD, "GRACE_PERIOD: Final = 300", "GRACE_PERIOD: Final = 600"),
    _Edit(_POD, "return [home, *given", f"return [home, {_VARIABLE}, *given"),
    _Edit(_POD, "names.READY_PATH, period=2", "names.READY_PATH, period=3"),
    *(_Edit(_WORKLOAD, f"{_LIMIT}0,\n{key}", f"{_LIMIT}{HISTORY_LIMIT},\n{key}") for key in _AFTER_IT),
    _Edit("charts/moorage/Chart.yaml", "\nversion: 0.1.0\n", "\nversion: 0.2.0\n"),
    _Edit("charts/moorage/Chart.yaml", "\nappVersion: 0.1.0\n", "\nappVersion: 0.2.0\n"),
    # The image stays: its operator is the one of the archive.
    _Edit(_DEPLOYMENT, _ENV, f"{_ENV}            - {{name: PYTHONPATH, value: /next/{ARCHIVE}}}\n"),
    _Edit(_DEPLOYMENT, _MOUNT, f"{_MOUNT}            - {{name: next, mountPath: /next}}\n"),
    _Edit(_DEPLOYMENT, _VOLUME, f"{_VOLUME}        - name: next\n          configMap: {{name: next}}\n"),
)


def write_next(folder: Path) -> None:
    """Write the next version's `moorage_api`, `moorage_operator`, `charts/moorage` and `crds` into a folder.

    Raises:
        ValueError: what is to be edited is not there any more.
    """
    shutil.copytree(ROOT / "charts" / "moorage", folder / "charts" / "moorage")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "operator" / package, folder / package, ignore=ignored)
    for edit in _EDITS:
        edit.apply(folder)
    moor = Path(sys.executable).with_name("moor")
    subprocess.run([moor, "crd", f"--output={folder}"], env=environment(folder), stdout=subprocess.DEVNULL, check=True)


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with which a Python program runs the next version."""
    return {**os.environ, "PYTHONPATH": str(folder)}


def archive(folder: Path) -> bytes:
    """Return its packages as a zip file, from which Python can import them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for package in PACKAGES:
            for path in sorted((folder / package).rglob("*.py")):
                packed.write(path, path.relative_to(folder))
    return out.getvalue()
