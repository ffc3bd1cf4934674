"""Caches, whose folders are not classes, are refused with the folder to pass instead."""

import shutil
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.ingest.photo_import import import_photos
from tests.helpers.archives import jpeg, write_zip
from tools import tiny_project

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SNAPSHOT = f"snapshots/{COMMIT}"


def run(source: Path, root: Path) -> dict[str, int]:
    return import_photos(
        source, root / "raw", replace=False, quarantine=root / "quarantine.csv", workers=1
    ).imported


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A cache of the Hugging Face Hub with a data set of two photos."""
    store = tmp_path / "hub/datasets--me--pets"
    for folder in ("blobs", "refs"):
        (store / folder).mkdir(parents=True)
    (store / "refs/main").write_text(COMMIT)
    for seed, name in enumerate(("cat", "dog")):
        blob = f"{seed:064x}"
        (store / "blobs" / blob).write_bytes(jpeg(seed))
        (store / SNAPSHOT / name).mkdir(parents=True)
        (store / SNAPSHOT / name / "1.jpg").symlink_to(f"../../../blobs/{blob}")
    return tmp_path / "hub"


@pytest.mark.parametrize("passed", ["", "datasets--me--pets"])
def test_a_cache_of_hugging_face_is_refused_and_the_snapshot_named(
    tmp_path: Path, hub: Path, passed: str
) -> None:
    with pytest.raises(
        CatdogError, match=r"cache of the Hugging Face Hub, .* such as \S+$"
    ) as refused:
        run(hub / passed, tmp_path)
    named = str(refused.value).rpartition(" ")[2]
    assert named == f"{hub}/datasets--me--pets/{SNAPSHOT}"
    assert run(Path(named), tmp_path) == {"cat": 1, "dog": 1}


def test_an_archive_of_such_a_cache_is_refused(tmp_path: Path, hub: Path) -> None:
    files = {path.relative_to(hub).as_posix(): path.read_bytes() for path in hub.rglob("*.jpg")}
    files["datasets--me--pets/blobs/" + "a" * 64] = jpeg(0)
    message = rf"; unpack it and pass one of its snapshots, such as datasets--me--pets/{SNAPSHOT}$"
    with pytest.raises(CatdogError, match=message):
        run(write_zip(tmp_path / "hub.zip", files), tmp_path)


def test_classes_with_these_names_are_imported(tmp_path: Path) -> None:
    files = {f"{name}/1.jpg": jpeg(i) for i, name in enumerate(("blobs", "snapshots", "ab"))}
    source = write_zip(tmp_path / "a.zip", files)
    assert run(source, tmp_path) == {"ab": 1, "blobs": 1, "snapshots": 1}


@pytest.mark.parametrize("passed", ["cache", "cache/files/md5"])
def test_a_cache_of_dvc_is_refused(tmp_path: Path, passed: str) -> None:
    project = tiny_project.create(tmp_path / "project")
    for seed in range(4):
        (project / "photos").mkdir(exist_ok=True)
        (project / f"photos/{seed}.jpg").write_bytes(jpeg(seed))
    assert tiny_project.dvc(project, "add", "-q", "photos") == 0
    shutil.move(project / ".dvc/cache", tmp_path / "cache")
    (tmp_path / "cache/runs/ab").mkdir(parents=True)
    (tmp_path / "cache/runs/ab/run").write_text("of a stage")
    with pytest.raises(CatdogError, match="cache of DVC, whose folders are not classes; run"):
        run(tmp_path / passed, tmp_path)
