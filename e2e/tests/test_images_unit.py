"""Tags, layouts and archives of images, without building any."""

import base64
import gzip
import hashlib
import io
import json
import tarfile

import pytest

from e2e.cluster.images.layout import Layout, write_archive
from e2e.cluster.images.sources import Recipe, recipes
from e2e.cluster.images.storage import Storage
from e2e.cluster.images.transfer import canonical
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.provider import ClusterError


@pytest.fixture
def repository(tmp_path):
    for path, content in {
        ".dockerignore": "*",
        "thing/Containerfile": "FROM x",
        "thing/code/main.py": "print()",
        "other/main.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    return tmp_path


RECIPE = Recipe("thing", ("thing/code",))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("thing/code/main.py", "print(1)"),
        ("thing/code/new.py", ""),
        ("thing/Containerfile", "FROM y"),
        (".dockerignore", ""),
    ],
)
def test_what_goes_in_changes_the_tag(repository, path, content):
    before = RECIPE.reference(repository, "base")
    (repository / path).write_text(content)
    assert RECIPE.reference(repository, "base") != before


@pytest.mark.parametrize(
    "path", ["other/main.py", "thing/README.md", "thing/code/__pycache__/main.pyc", "thing/code/k.so"]
)
def test_what_stays_out_does_not(repository, path):
    before = RECIPE.reference(repository, "base")
    (repository / path).parent.mkdir(exist_ok=True)
    (repository / path).write_text("changed")
    assert RECIPE.reference(repository, "base") == before


def test_base_and_arguments_change_the_tag(repository):
    references = {
        RECIPE.reference(repository, "base"),
        RECIPE.reference(repository, "another"),
        Recipe("thing", ("thing/code",), (("TORCH", "torch"),)).reference(repository, "base"),
    }
    assert len(references) == 3


@pytest.mark.parametrize("torch", ["torch", "torch-cpu"])
@pytest.mark.parametrize("models", [None, "requirements/model.txt"])
def test_every_path_of_the_recipes_exists_and_is_copied(torch, models):
    for recipe in recipes(torch=torch, models=models):
        containerfile = (REPOSITORY / recipe.containerfile).read_text()
        for path in recipe.paths:
            assert (REPOSITORY / path).exists()
            spelled = path.replace(f"{torch}.txt", "${TORCH}.txt").replace(models or "-", "${MODELS}")
            assert spelled in containerfile


def test_only_missing_blobs_are_sent(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    layout = Layout(tmp_path / "layout")
    layout.add_program("docker.io/a/b:1", program)
    manifest, config, layer = layout.blobs("docker.io/a/b:1")

    def sent(present):
        out = io.BytesIO()
        write_archive(layout, ["docker.io/a/b:1"], present, out)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            index = json.load(archive.extractfile("index.json"))
            assert index["manifests"][0]["digest"] == manifest
            return {name.replace("blobs/sha256/", "sha256:") for name in archive.getnames()} - {
                "index.json",
                "oci-layout",
            }

    assert sent(present=set()) == {manifest, config, layer}
    assert sent(present={layer}) == {manifest, config}


def test_a_forgotten_image_leaves_what_others_use(tmp_path):
    program = tmp_path / "program"
    layout = Layout(tmp_path / "layout")
    for version, name in enumerate(["a:1", "b:1", "a:2"]):
        program.write_bytes(bytes([version // 2]))
        layout.add_program(name, program)
    kept = {*layout.blobs("b:1"), *layout.blobs("a:2")}
    layout.forget({"a:1"})
    assert layout.references() == ["b:1", "a:2"]
    assert {f"sha256:{path.name}" for path in layout.folder.glob("blobs/sha256/*")} == kept
    with pytest.raises(ClusterError, match="There is no image a:1 in "):
        layout.blobs("a:1")


def test_a_layer_is_put_together_from_storage_and_a_damaged_one_is_refused(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("folder/file")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
    whole = content.getvalue()
    digest = f"sha256:{hashlib.sha256(whole).hexdigest()}"
    entries = [
        {"type": 2, "payload": base64.b64encode(whole[:512]).decode(), "position": 0},
        {"type": 1, "name": "folder/file", "size": 4, "position": 1},
        {"type": 2, "payload": base64.b64encode(whole[516:]).decode(), "position": 2},
    ]
    (tmp_path / "overlay-layers").mkdir()
    (tmp_path / "overlay-layers" / "layers.json").write_text(
        json.dumps([{"id": "x"}, {"id": "l", "diff-digest": digest}])
    )
    with gzip.open(tmp_path / "overlay-layers" / "l.tar-split.gz", "wt") as record:
        record.write("\n".join(json.dumps(entry) for entry in entries))
    file = tmp_path / "overlay" / "l" / "diff" / "folder" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"text")
    storage = Storage(tmp_path, "overlay")
    storage.export(digest, tmp_path / "layer")
    assert (tmp_path / "layer").read_bytes() == whole
    file.write_bytes(b"TEXT")
    with pytest.raises(ClusterError, match="is damaged"):
        storage.export(digest, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_names_are_those_of_the_node():
    assert canonical("moorage/operator:1") == "docker.io/moorage/operator:1"
    assert canonical("docker.io/moorage/operator:1") == "docker.io/moorage/operator:1"
