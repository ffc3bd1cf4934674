"""New photos are tracked with DVC, but not in the remote of the sample."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catdog.errors import CatdogError
from catdog.ingest import dvc_add
from tools import tiny_project


def test_the_remote_of_the_sample_is_removed_and_the_rest_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "raw.dvc"
    file.write_text("# a comment\nouts:\n- md5: abc.dir\n  path: raw\n  remote: sample\n")
    dvc_add.remove_sample(file)
    assert yaml.safe_load(file.read_text()) == {"outs": [{"md5": "abc.dir", "path": "raw"}]}


def test_the_copy_of_the_sample_is_removed_from_the_file_and_from_disk(tmp_path: Path) -> None:
    file, copy = tmp_path / "raw.dvc", tmp_path / ".sample"
    photos, sample = "- path: raw\n  remote: ours\n", "- path: .sample\n  remote: sample\n"
    file.write_text(f"outs:\n{sample}{photos}")
    copy.mkdir()
    (tmp_path / "raw").mkdir()
    dvc_add.remove_sample(file)
    assert yaml.safe_load(file.read_text()) == {"outs": [{"path": "raw", "remote": "ours"}]}
    assert not copy.exists()
    assert (tmp_path / "raw").is_dir()


def test_a_dvc_file_with_a_merge_conflict_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = tmp_path / "raw.dvc"
    file.write_text("outs:\n<<<<<<< HEAD\n- md5: abc.dir\n=======\n- md5: def.dir\n>>>>>>> other\n")
    with pytest.raises(
        CatdogError, match=r"raw\.dvc: invalid YAML in line 3: .*; fix the file"
    ) as error:
        dvc_add.remove_sample(file)
    assert "\n" not in str(error.value)


def test_without_a_dvc_file_nothing_is_changed(tmp_path: Path) -> None:
    dvc_add.remove_sample(tmp_path / "raw.dvc")
    assert not list(tmp_path.iterdir())


def test_a_dvc_project_without_git_has_no_changes_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photos: Callable[[Path, int], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tiny_project.dvc(tmp_path, "init", "--quiet", "--no-scm") == 0
    make_photos(tmp_path / "raw" / "cat", 1)
    assert dvc_add.add(Path("raw")) is None
    assert (tmp_path / "raw.dvc").is_file()


def test_an_error_of_dvc_is_one_line_and_the_photos_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is not a DVC project."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatdogError, match=r"^dvc add failed: \S.*; the imported photos are kept$"):
        dvc_add.add(Path("raw"))
    assert (tmp_path / "raw").is_dir()
