"""New photos are handed to DVC without the remote of the sample."""

import subprocess
from pathlib import Path

import pytest
import yaml

from catdog.errors import CatdogError
from catdog.ingest import dvc_add


def test_the_remote_is_taken_out_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "raw.dvc"
    file.write_text("# a comment\nouts:\n- md5: abc.dir\n  path: raw\n  remote: sample\n")
    dvc_add.forget_remote(file)
    assert yaml.safe_load(file.read_text()) == {"outs": [{"md5": "abc.dir", "path": "raw"}]}


def test_a_dvc_file_in_conflict_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "raw.dvc"
    file.write_text("outs:\n<<<<<<< HEAD\n- md5: abc.dir\n=======\n- md5: def.dir\n>>>>>>> other\n")
    with pytest.raises(CatdogError, match=r"raw\.dvc: is no YAML: line 3: .*; correct it") as error:
        dvc_add.forget_remote(file)
    assert "\n" not in str(error.value)


def test_without_a_dvc_file_there_is_nothing_to_take_out(tmp_path: Path) -> None:
    dvc_add.forget_remote(tmp_path / "raw.dvc")
    assert not list(tmp_path.iterdir())


def test_what_dvc_says_becomes_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that holds no DVC project: the photos stay where they are."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatdogError, match=r"the photos are in place, but dvc failed: \S+"):
        dvc_add.add(Path("raw"))
    assert (tmp_path / "raw").is_dir()
