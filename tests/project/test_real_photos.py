"""The main job on real photos, which are not in the repository: tested where they are found.

They are looked for in the folder that CATDOG_PHOTOS names, or else in ../shared/photos.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from catdog import params
from catdog.dataset import splits
from catdog.evaluation import evaluate
from catdog.ingest.photo_import import import_photos
from catdog.preparation import prepare
from catdog.training import train

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = Path(os.environ.get("CATDOG_PHOTOS", ROOT.parent / "shared" / "photos"))


def archive(name: str) -> Path:
    """Return an archive of real photos, or skip the test where there is none."""
    if not (PHOTOS / name).is_file():
        pytest.skip(f"{name} is not here; CATDOG_PHOTOS names the folder")
    return PHOTOS / name


def bring_in(name: str, folder: Path) -> dict[str, int]:
    """Import an archive into folder/raw; return the photos by class."""
    found = archive(name)
    quarantine = folder / "quarantine.csv"
    return import_photos(found, folder / "raw", replace=False, quarantine=quarantine).imported


def test_kaggles_photos_at_full_size_come_in_and_can_be_prepared(tmp_path: Path) -> None:
    assert bring_in("train_fullsize.zip", tmp_path) == {"cat": 250, "dog": 250}
    settings = params.load(ROOT / "recipes" / "real.yaml").prepare
    counts = prepare.prepare(settings, tmp_path / "raw", tmp_path / "prepared")
    assert sum(counts["refused"].values()) == 0
    rows = splits.read_split(tmp_path / "prepared", "train").rows
    assert max(int(row["width"]) for row in rows) > 400  # the photo's own size, not the draft's


@pytest.mark.slow
def test_the_quick_recipe_is_right_about_88_of_100_unseen_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an archive of 19,999 photos to metrics; 88 is what the seed says after 60 epochs.

    Two minutes of training on two idle cores. The real recipe's figure is in benchmarks/README.md.
    """
    taken = bring_in("kagglecatsanddogs_180px.zip", tmp_path)
    assert taken == {"cat": 9999, "dog": 10000}
    monkeypatch.chdir(tmp_path)  # checkpoints are written below the working folder
    settings = params.load(ROOT / "recipes" / "quick.yaml")
    prepared, models, history = Path("prepared"), Path("models"), Path("history.csv")
    prepare.prepare(settings.prepare, Path("raw"), prepared)
    shutil.rmtree("raw")
    train.train(settings, prepared, models, history)
    evaluate.evaluate(settings, prepared, models, Path("m.json"), Path("reports"), history)
    metrics = json.loads(Path("m.json").read_text(encoding="utf-8"))
    assert metrics["photos"] > 1900
    assert metrics["accuracy"] >= 0.88
