"""Predictions equal those of evaluate, and every file has a row."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catdog import params, predict
from catdog.dataset.prepared import read_split
from catdog.errors import CatdogError
from catdog.model import networks, saved
from catdog.model.card import ModelCard, versions
from catdog.predict import run_predict
from catdog.preparation.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
PARAMS = params.load(ROOT / "params.yaml")
SIDE = 32


def make_photo(file: Path, seed: int) -> None:
    """Write smooth noise larger than SIDE."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((210, 150), Image.Resampling.BICUBIC).save(file, quality=90)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    settings = PARAMS.model.model_copy(
        update={"residual": PARAMS.model.residual.model_copy(update={"width": 8})}
    )
    torch.manual_seed(1)
    network = networks.build(settings, 2, SIDE)
    with torch.no_grad():  # an untrained network gives nearly equal probabilities
        network.state_dict()["classifier.weight"].mul_(10_000)
    card = ModelCard(
        model=settings,
        classes=["cat", "dog"],
        stored_image_size=SIDE,
        image_size=24,
        flip=True,
        mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5],
        precision="float32",
        epoch=1,
        weights=networks.count_parameters(network),
        pflop=0.0,
        versions=versions(),
    )
    saved.save(folder, network, card)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of two photos and, between them, a damaged one."""
    folder = tmp_path / "photos"
    make_photo(folder / "a.jpg", 1)
    make_photo(folder / "c" / "deep, [red].jpg", 2)
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    return folder


def run(paths: list[Path], models: Path, format: predict.Format) -> tuple[int, str]:
    stream = io.StringIO()
    return run_predict(paths, models, format, stream), stream.getvalue()


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_raw_photo_gets_the_probabilities_of_evaluate(tmp_path: Path, models: Path) -> None:
    raw = tmp_path / "raw"
    for index in range(30):
        make_photo(raw / ("cat" if index % 2 else "dog") / f"{index:02}.jpg", index)
    settings = params.Prepare(image_size=SIDE, split="content", val_share=0.3, test_share=0.4)
    prepare(settings, raw, tmp_path / "prepared", workers=1)
    split = read_split(tmp_path / "prepared", "test")
    model = saved.load(models)
    expected = model.probabilities(split.photos)
    assert np.ptp(expected[:, 0]) > 0.05
    found = predict.predict([raw / row["path"] for row in split.rows], model)
    for row, prediction in zip(expected, found, strict=True):
        assert prediction.probabilities == dict(zip(["cat", "dog"], row.tolist(), strict=True))
        assert prediction.prediction == ["cat", "dog"][row.argmax()]


def test_the_batch_size_changes_neither_order_nor_predictions(
    photos: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved.load(models)
    paths = sorted(file for file in photos.rglob("*") if file.is_file()) * 3
    whole = list(predict.predict(paths, model))
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    small = list(predict.predict(paths, model))
    assert [row.path for row in small] == [row.path for row in whole] == paths
    for one, other in zip(small, whole, strict=True):
        assert (one.prediction, one.error) == (other.prediction, other.error)
        if one.probabilities and other.probabilities:
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_at_most_two_batches_are_decoded_ahead(
    photos: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    decode = predict._decode

    def spy(path: Path, image_size: int) -> Any:
        opened.append(path)
        return decode(path, image_size)

    monkeypatch.setattr(predict, "_decode", spy)
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    next(predict.predict([photos / "a.jpg"] * 12, saved.load(models)))
    assert 2 <= len(opened) <= 4


def test_csv_has_a_row_for_each_file_and_an_error_for_a_damaged_one(
    photos: Path, models: Path
) -> None:
    errors, text = run([photos], models, "csv")
    assert errors == 1
    assert text.splitlines()[0] == "path,prediction,probability_cat,probability_dog,error"
    valid, damaged, deep = rows_of(text)
    assert damaged["path"] == str(photos / "b.jpg")
    assert damaged["error"]
    assert str(photos) not in damaged["error"]
    assert damaged["prediction"] == damaged["probability_cat"] == damaged["probability_dog"] == ""
    assert deep["path"] == str(photos / "c" / "deep, [red].jpg")
    for row in (valid, deep):
        cat, dog = float(row["probability_cat"]), float(row["probability_dog"])
        assert cat + dog == pytest.approx(1, abs=2e-6)
        assert row["prediction"] == ("cat" if cat > dog else "dog")
        assert row["error"] == ""


def test_json_equals_csv(photos: Path, models: Path) -> None:
    errors, text = run([photos], models, "json")
    values = json.loads(text)
    assert errors == 1
    for value, row in zip(values, rows_of(run([photos], models, "csv")[1]), strict=True):
        assert value["path"] == row["path"]
        assert value["prediction"] == (row["prediction"] or None)
        assert value["error"] == (row["error"] or None)
        if value["probabilities"] is None:
            assert value["error"]
        else:
            for name, probability in value["probabilities"].items():
                assert f"{probability:.6f}" == row[f"probability_{name}"]


def test_json_without_predictions_is_an_empty_list() -> None:
    stream = io.StringIO()
    predict.write_json([], ["cat", "dog"], stream)
    assert json.loads(stream.getvalue()) == []


def test_the_table_shows_literal_paths_and_errors(photos: Path, models: Path) -> None:
    errors, text = run([photos], models, "table")
    assert errors == 1
    assert "[red].jpg" in "".join(text.split()).replace("│", "")
    assert "error: " in text
    assert "%" in text


def test_without_errors_the_count_is_0(photos: Path, models: Path) -> None:
    assert run([photos / "a.jpg"], models, "csv")[0] == 0


def test_only_damaged_files_still_have_rows(photos: Path, models: Path) -> None:
    errors, text = run([photos / "b.jpg"], models, "csv")
    assert errors == len(rows_of(text)) == 1


def test_without_photos_nothing_is_written(tmp_path: Path, models: Path) -> None:
    (tmp_path / "empty").mkdir()
    stream = io.StringIO()
    for paths in ([], [tmp_path / "empty"]):
        with pytest.raises(CatdogError, match="no photos found"):
            run_predict(paths, models, "csv", stream)
    assert stream.getvalue() == ""


def test_without_a_model_nothing_is_written(photos: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(CatdogError, match="no such file; run `dvc repro`"):
        run_predict([photos], tmp_path / "models", "csv", stream)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_closed_pipe_is_not_reported_as_an_unreadable_file(
    photos: Path, models: Path, form: str
) -> None:
    """As in `catdog predict … | head`: the exit code is not 1, which means an unreadable file."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "catdog", "predict", str(photos), "--model", str(models)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [*command, "--format", form],
            stdout=gone,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


# Names that are no text: bytes that are not UTF-8, line breaks, and codes that clear a terminal
ODD_NAMES = (
    b"caf\xe9.jpg",
    b"line\nbreak.jpg",
    b"return\r.jpg",
    b"\x1b[2J.jpg",
    "\u732b.jpg".encode(),
)


@pytest.fixture
def odd_photos(tmp_path: Path) -> Path:
    """Return a folder of photos with ODD_NAMES, and of two files that are not photos."""
    make_photo(tmp_path / "photo.jpg", 1)
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / os.fsdecode(name)).write_bytes((tmp_path / "photo.jpg").read_bytes())
    for other in ("notes.txt", "film.mp4"):
        (folder / other).write_text("no photo")
    return folder


C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run_command(
    models: Path, *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "catdog", "predict", "--model", str(models), *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(environment or {})},
        check=False,
    )


@pytest.mark.parametrize("form", ["csv", "json"])
def test_csv_and_json_are_utf8_in_every_locale_with_any_file_name(
    odd_photos: Path, models: Path, form: predict.Format
) -> None:
    errors, text = run([odd_photos], models, form)
    done = run_command(models, str(odd_photos), "--format", form, environment=C_LOCALE)
    assert done.stdout == text.encode()
    assert done.stderr == b"catdog: predict: skipped 2 files that are not photos\n"
    assert done.returncode == errors == 0
    if form == "json":
        paths = {row["path"].encode("utf-8", "surrogateescape") for row in json.loads(text)}
        assert paths == {os.fsencode(odd_photos) + b"/" + name for name in ODD_NAMES}
    else:
        readable = {name.decode("utf-8", "backslashreplace") for name in ODD_NAMES}
        assert {Path(row["path"]).name for row in rows_of(text)} == readable


@pytest.mark.parametrize(
    "locale", [C_LOCALE, {"PYTHONIOENCODING": "latin-1"}], ids=["C", "Latin-1"]
)
def test_the_table_is_written_in_every_locale_with_any_file_name(
    odd_photos: Path, models: Path, locale: dict[str, str]
) -> None:
    done = run_command(models, str(odd_photos), environment=locale)
    assert done.returncode == 0, done.stderr
    for name in (rb"caf\xe9.jpg", rb"line\nbreak.jpg", rb"return\r.jpg", rb"\x1b[2J.jpg"):
        assert name in done.stdout
    assert rb"\u732b.jpg" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("given", ["-", "/dev/stdin"])
def test_a_photo_on_standard_input_is_predicted_as_a_file(
    photos: Path, models: Path, given: str
) -> None:
    (expected,) = rows_of(run([photos / "a.jpg"], models, "csv")[1])
    content = (photos / "a.jpg").read_bytes()
    done = run_command(models, given, "--format", "csv", stdin=content)
    assert rows_of(done.stdout.decode()) == [{**expected, "path": given}]
    assert (done.returncode, done.stderr) == (0, b"")
