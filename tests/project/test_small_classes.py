"""The stages on many small classes, which the sample does not have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catdog.evaluation import evaluate
from catdog.preparation import prepare
from catdog.training import train
from tests.helpers.prepared_data import settings

NAMES = [f"breed{index:02}" for index in range(20)]


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_twenty_classes_of_fifteen_photos_are_prepared_trained_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    monkeypatch.chdir(tmp_path)  # checkpoints are written below the working directory
    generator, raw = np.random.default_rng(1), tmp_path / "raw"
    for name in NAMES:
        (raw / name).mkdir(parents=True)
        for index in range(15):
            pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(raw / name / f"{index}.png")
    recipe = settings(train__epochs=1, train__class_weights=weights)
    prepared, models, history = Path("prepared"), Path("models"), Path("history.csv")
    counts = prepare.prepare(recipe.prepare, raw, prepared, workers=1)
    for split in ("train", "val", "test"):
        assert set(counts[split]) == set(NAMES)
        assert min(counts[split].values()) >= 1
    assert sum(map(sum, (row.values() for row in counts.values()))) == 300
    train.train(recipe, prepared, models, history)
    metrics = evaluate.evaluate(recipe, prepared, models, Path("m.json"), Path("reports"), history)
    recalls = [row["accuracy"] for row in metrics["classes"].values()]
    assert list(metrics["classes"]) == NAMES
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert metrics["photos"] == sum(counts["test"].values())
