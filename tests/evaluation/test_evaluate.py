"""Stage 3: all output files for a prepared dataset and a saved model."""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from catdog import params
from catdog.errors import CatdogError
from catdog.evaluation.evaluate import evaluate, read_history
from catdog.model import networks, saved
from catdog.model.card import ModelCard, versions
from catdog.model.inputs import to_inputs

PARAMS = params.load(Path(__file__).parents[2] / "params.yaml")
SIDE = 32
HISTORY = """epoch,image_size,lr,train_loss,train_accuracy,val_loss,val_accuracy,best
1,32,0.1,0.7,0.5,0.69,0.55,1
2,32,0.01,0.6,0.6,0.65,0.6,1
"""
FILES = {
    "calibration.csv",
    "calibration.png",
    "confusion.csv",
    "confusion.png",
    "curves.png",
    "examples.png",
    "mistakes.png",
    "predictions.csv",
    "report.html",
    "roc.csv",
    "roc.png",
}


@dataclass(frozen=True)
class Run:
    """The folders of one evaluation."""

    folder: Path

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    def evaluate(self) -> None:
        folder = self.folder
        evaluate(
            PARAMS,
            folder / "prepared",
            folder / "models",
            self.metrics,
            self.reports,
            folder / "history.csv",
        )

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.reports / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def make_photos(photos: int, side: int) -> npt.NDArray[np.uint8]:
    """Return noise of shape (photos, side, side, 3), with another tint in each photo."""
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (photos, side, side, 3), dtype=np.uint8)
    return pixels // generator.integers(1, 8, (photos, 1, 1, 3), dtype=np.uint8)


def make_run(folder: Path, classes: list[str], photos: int) -> Run:
    """Write `photos` synthetic test photos, two refused files per class, an untrained model."""
    prepared = folder / "prepared"
    prepared.mkdir(parents=True)
    pixels = make_photos(photos, SIDE)
    np.save(prepared / "test.npy", pixels)
    with (prepared / "photos.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "split", "sha256", "width", "height", "reason"])
        for index in range(photos):
            name = classes[index * len(classes) // photos]
            sha256 = hashlib.sha256(pixels[index].tobytes()).hexdigest()
            writer.writerow([f"{name}/{index:03}.jpg", name, "test", sha256, 50, 40, ""])
        for name in classes:
            writer.writerow([f"{name}/a.txt", name, "", "0" * 64, 0, 0, "not a photo"])
            writer.writerow([f"{name}/b.jpg", name, "train", "1" * 64, 50, 40, ""])
    save_model(folder / "models", classes)
    (folder / "history.csv").write_text(HISTORY, encoding="utf-8")
    return Run(folder)


def save_model(folder: Path, classes: list[str], side: int = SIDE) -> None:
    settings = PARAMS.model.model_copy(
        update={"residual": PARAMS.model.residual.model_copy(update={"width": 8})}
    )
    torch.manual_seed(1)
    network = networks.build(settings, len(classes), side).eval()
    card = ModelCard(
        model=settings,
        classes=classes,
        stored_image_size=side,
        image_size=side,
        flip=True,
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5],
        precision="float32",
        epoch=2,
        weights=networks.count_parameters(network),
        pflop=0.5,
        versions=versions(),
    )
    # An untrained network predicts nearly the same for all photos, so its logits are rescaled.
    state = network.state_dict()
    with torch.no_grad():
        logits = network(
            to_inputs(torch.from_numpy(make_photos(40, side)), card.image_size, card.normalization)
        )
        for name in ("classifier.weight", "classifier.bias"):
            state[name] *= 2 / logits.std(dim=0).mean()
        centre = logits.mean(dim=0) * 2 / logits.std(dim=0).mean()
        state["classifier.bias"] -= centre / networks.LOGIT_SCALE
    saved.save(folder, network, card)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("two"), ["cat", "dog"], photos=40)
    run.evaluate()
    return run


def test_exactly_the_documented_files_are_written(done: Run) -> None:
    assert {file.name for file in done.reports.iterdir()} == FILES
    assert not list(done.folder.glob(".*"))


def test_predictions_have_a_row_per_test_photo_sorted_by_hash(done: Run) -> None:
    rows = done.table("predictions.csv")
    assert list(rows[0]) == [
        *("sha256", "path", "class", "prediction", "probability_cat", "probability_dog")
    ]
    assert len(rows) == 40
    assert [row["sha256"] for row in rows] == sorted(row["sha256"] for row in rows)


def test_each_row_holds_the_prediction_for_its_photo(done: Run) -> None:
    rows = {row["path"]: row for row in done.table("predictions.csv")}
    pixels = np.load(done.folder / "prepared" / "test.npy")
    expected = saved.load(done.folder / "models").probabilities(pixels)
    assert np.ptp(expected[:, 0]) > 0.5  # otherwise swapped rows would not be noticed
    for index, (cat, dog) in enumerate(expected):
        row = rows[f"{'cat' if index < 20 else 'dog'}/{index:03}.jpg"]
        assert row["sha256"] == hashlib.sha256(pixels[index].tobytes()).hexdigest()
        assert row["class"] == row["path"][:3]
        assert (row["probability_cat"], row["probability_dog"]) == (f"{cat:.6f}", f"{dog:.6f}")
        assert row["prediction"] == ("cat" if cat > dog else "dog")


def test_metrics_agree_with_the_predictions(done: Run) -> None:
    metrics = json.loads(done.metrics.read_text(encoding="utf-8"))
    rows = done.table("predictions.csv")
    correct = sum(row["class"] == row["prediction"] for row in rows)
    assert len({row["prediction"] for row in rows}) == 2
    assert (metrics["photos"], metrics["correct"]) == (40, correct)
    assert metrics["accuracy"] == round(correct / 40, 6)
    assert (metrics["epoch"], metrics["train_pflop"]) == (2, 0.5)
    assert metrics["weights"] == saved.load(done.folder / "models").card.weights


def test_the_confusion_table_has_a_row_per_photo(done: Run) -> None:
    rows = done.table("confusion.csv")
    assert [list(row.values()) for row in rows] == [
        [row["class"], row["prediction"]] for row in done.table("predictions.csv")
    ]
    assert list(rows[0]) == ["actual", "predicted"]


def test_roc_and_calibration_tables_hold_numbers(done: Run) -> None:
    roc, calibration = done.table("roc.csv"), done.table("calibration.csv")
    assert list(roc[0]) == ["fpr", "tpr", "threshold"]
    assert list(calibration[0]) == ["confidence", "accuracy", "photos"]
    assert sum(int(row["photos"]) for row in calibration) == 40
    assert all(0 <= float(row[name]) <= 1 for row in roc for name in ("fpr", "tpr"))


def test_plots_are_readable_and_the_page_contains_all_of_them(done: Run) -> None:
    plots = [name for name in FILES if name.endswith(".png")]
    for name in plots:
        with Image.open(done.reports / name) as plot:
            plot.load()
            assert min(plot.size) > 100
    page = (done.reports / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(plots)


def test_the_same_inputs_give_the_same_bytes(done: Run, tmp_path: Path) -> None:
    again = make_run(tmp_path, ["cat", "dog"], photos=40)
    again.evaluate()
    assert again.metrics.read_bytes() == done.metrics.read_bytes()
    for name in FILES:
        assert (again.reports / name).read_bytes() == (done.reports / name).read_bytes(), name


def test_three_classes_of_any_name(tmp_path: Path) -> None:
    classes = ["<b>cat</b>", "a.b, c", "größer $1$"]
    run = make_run(tmp_path, classes, photos=30)
    run.evaluate()
    rows = run.table("predictions.csv")
    assert [name for name in rows[0] if name.startswith("probability_")] == [
        f"probability_{name}" for name in classes
    ]
    assert set(json.loads(run.metrics.read_text(encoding="utf-8"))["classes"]) == set(classes)
    assert {row["class"] for row in run.table("roc.csv")} == set(classes)
    assert "<b>" not in (run.reports / "report.html").read_text(encoding="utf-8")


def test_a_model_of_other_classes_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["cat", "dog"], photos=4)
    save_model(tmp_path / "models", ["cat", "horse"])
    with pytest.raises(CatdogError, match=r"classes cat, horse, but .* has cat, dog; run"):
        run.evaluate()
    assert not run.metrics.exists()
    assert not run.reports.exists()


def test_a_model_of_another_stored_size_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["cat", "dog"], photos=4)
    save_model(tmp_path / "models", ["cat", "dog"], side=48)
    with pytest.raises(CatdogError, match=r"photos of 48 pixels, but those in .* have 32"):
        run.evaluate()


def test_an_empty_test_split_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["cat", "dog"], photos=0)
    with pytest.raises(CatdogError, match=r"no test photos; increase prepare\.test_share"):
        run.evaluate()
    assert not run.metrics.exists()


@pytest.mark.parametrize(
    "text", ["", "epoch\n1\n", HISTORY.replace("0", "x", 1), HISTORY + "nan,\n", HISTORY + "2,1\n"]
)
def test_a_damaged_history_is_an_error_of_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CatdogError, match=r"history\.csv: not the history of a training run") as e:
        read_history(tmp_path / "history.csv")
    assert "\n" not in str(e.value)


def test_a_missing_history_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["cat", "dog"], photos=4)
    (tmp_path / "history.csv").unlink()
    with pytest.raises(CatdogError, match=r"history\.csv: no such file; run `dvc repro train`"):
        run.evaluate()
    assert not run.reports.exists()
