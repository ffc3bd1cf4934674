"""The benchmarks: each of them runs and prints its table, and its arithmetic is right."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks import data_loading, imbalance, notebook, photo_import, training_step
from catdog import params
from catdog.errors import CatdogError
from catdog.model.devices import pick_device
from catdog.training import batches
from catdog.training.photo_store import PhotoStore
from tools import command_line, measure
from tools.draw_sample import draw_sample
from tools.photo_folder import photo_folder

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "freed_memory": "--sizes 32 --batch-size 2 --steps 1 --trials 1",
    "prefetch": "--sizes 32 --steps 2 --trials 1",
    "training_overhead": "--photos 40 --image-size 32 --trials 1",
    "data_loading": "--number 8 --sizes 32 --batch-size 4 --trials 1",
    "training_step": "--widths 8 --sizes 32 --batch-size 2 --matmuls 64 --trials 1",
    "notebook": "--timed 4 --number 4 --image-size 16 --hidden-width 8 --epochs 1 --trials 1",
}
SLOW = {"freed_memory", "prefetch", "training_overhead"}  # 6 to 16 s each
TABLES = {
    "freed_memory": ("2 photos at 32 px", "returned", "kept", "×"),
    "prefetch": ("2 steps at 32 px", "not prefetched", "│ prefetched", "waiting"),
    "training_overhead": ("40 photos", "seconds of the command", "of the epoch", "overhead"),
    "data_loading": ("ImageFolder, 2 workers", "catdog, 1 thread", "pre-decoding", "×"),
    "training_step": ("matrices of 64 × 64", "residual, width 8, 32 px, batch 2", "100.0%"),
    "notebook": ("notebook", "catdog", "difference", "times the noise", "×"),
}


def run(name: str, arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as the Makefile does, on one thread."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments.split()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn photos, in class folders."""
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    draw_sample(folder, 24)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SETTINGS],
)
def test_each_benchmark_prints_the_hardware_and_its_table(name: str) -> None:
    done = run(name, SETTINGS[name])
    assert done.returncode == 0, done.stderr
    assert f"torch {torch.__version__}" in done.stdout.splitlines()[0]
    assert [words for words in TABLES[name] if words not in done.stdout] == []


def test_make_bench_runs_the_short_benchmarks() -> None:
    command = ["make", "--dry-run", "bench"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = shown.split("for name in ")[1].split(";")[0].split()
    scripts = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert set(names) == scripts - {"orchestration", "imbalance"}


def test_an_error_is_one_line(tmp_path: Path) -> None:
    def main() -> None:
        with photo_folder(tmp_path / "missing", 8):
            pass

    with pytest.raises(SystemExit, match=r"^catdog: [^\n]*missing: no such folder[^\n]*$"):
        command_line.run(main)


def test_trials_are_interleaved_after_a_warmup() -> None:
    ran: list[str] = []
    names = ["slow", "fast"]
    costs = measure.interleaved({name: partial(ran.append, name) for name in names}, trials=3)
    assert ran == names * 4
    assert {name: len(values) for name, values in costs.items()} == {"slow": 3, "fast": 3}


def test_seconds_and_cpu_seconds_have_separate_medians() -> None:
    costs = [measure.Cost(1, 30), measure.Cost(2, 10), measure.Cost(9, 20)]
    assert measure.median_of(costs) == measure.Cost(2, 20)


def test_cpu_time_includes_child_processes() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    cost = measure.cost_of(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert cost.cpu_seconds >= 0.4


def test_a_photo_folder_has_the_requested_number_of_readable_photos(drawn: Path) -> None:
    (drawn / "cat" / "aaa.jpg").write_bytes(b"no photo")  # skipped: not readable
    with photo_folder(drawn, 6) as folder:
        found = sorted(file.parent.name for file in folder.glob("*/*.jpg"))
        assert not (folder / "cat" / "aaa.jpg").exists()
    assert found == ["cat"] * 3 + ["dog"] * 3
    assert not folder.exists()


def test_too_few_photos_are_an_error(drawn: Path) -> None:
    with pytest.raises(CatdogError, match="smaller --number"), photo_folder(drawn, 1000):
        pass


@pytest.mark.parametrize("middle", [1.5, 3.0, 30.0])
def test_the_fractions_of_a_gain_sum_to_1(middle: float) -> None:
    assert sum(data_loading.fractions_of_gain(1, middle, 30)) == pytest.approx(1)


def test_equal_factors_have_equal_fractions() -> None:
    assert data_loading.fractions_of_gain(2, 8, 32) == pytest.approx((0.5, 0.5))


def test_all_pipelines_make_batches_with_the_same_statistics(drawn: Path) -> None:
    torch.manual_seed(1)  # torchvision uses torch's global generator
    augmentation = params.load(ROOT / "recipes" / "real.yaml").augmentation
    workload = data_loading.Workload(augmentation.model_copy(update={"fill": "black"}), 32, 8)
    with photo_folder(drawn, 24) as folder:
        photos = PhotoStore(*data_loading.pack(folder, 32), torch.device("cpu"))
        epochs = data_loading.pipelines(folder, photos, workload)
        means = {}
        for name, start in epochs.items():
            found = [b.inputs if isinstance(b, batches.Batch) else b[0] for b in start()]
            pixels = torch.cat(found)
            assert pixels.shape == (24, 3, 32, 32)
            means[name] = [pixels.mean().item(), pixels.std().item()]
    expected = means[data_loading.TORCHVISION]
    for values in means.values():  # augmentation is random, but means over 24 photos hardly differ
        assert values == pytest.approx(expected, abs=0.15)


def test_a_multiply_add_counts_as_two_operations() -> None:
    device = pick_device("float32", "cpu")
    assert training_step.prepare_matmul(8, device)[0] == 2 * 8**3


def test_the_flops_of_a_step_are_proportional_to_photos_and_pixels() -> None:
    recipe = training_step.with_width(params.load(ROOT / "recipes" / "real.yaml"), 8)
    device = pick_device("float32", "cpu")
    two, four, six, larger = (
        training_step.prepare_step(recipe, size, photos, device)[0]
        for size, photos in ((32, 2), (32, 4), (32, 6), (64, 2))
    )
    two_photos = four - two  # the products of Muon do not depend on the number of photos
    assert six - four == two_photos > 0
    assert larger - two == pytest.approx(3 * two_photos, rel=0.01)


def test_both_training_runs_start_from_the_same_weights(drawn: Path) -> None:
    recipe = notebook.with_hidden_width(params.load(ROOT / "recipes" / "seed.yaml"), 8)
    with photo_folder(drawn, 4) as folder:
        small = notebook.with_image_size(recipe, 16)
        trainings = notebook.build_trainings(folder, small, pick_device("float32", "cpu"), 1)
    old, new = trainings["notebook"], trainings["catdog"]
    assert isinstance(old, notebook.Notebook) and isinstance(new, notebook.Catdog)
    pairs = zip(old.network.parameters(), new.runner.network.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_noise_is_the_standard_deviation_of_the_difference_of_two_means() -> None:
    generator = np.random.default_rng(0)
    trials = generator.normal(0, 0.1, (400, 2, 5, 3))  # training, seed, epoch
    gaps = trials[:, 1].mean(1) - trials[:, 0].mean(1)
    noises = [notebook.noise_of(trial.tolist()) for trial in trials]
    assert np.mean(noises) == pytest.approx(gaps.std(), rel=0.1)


def test_an_import_returns_the_number_of_photos(drawn: Path) -> None:
    assert photo_import.import_once(drawn, workers=1) == 24


@pytest.mark.slow
def test_the_imbalance_benchmark_keeps_finished_runs(drawn: Path, tmp_path: Path) -> None:
    recipe = params.read_yaml(ROOT / "recipes" / "quick.yaml")
    recipe["prepare"]["image_size"] = 32
    sizes = ("start_image_size", "image_size", "eval_image_size")
    recipe["train"] |= {"epochs": 1, **dict.fromkeys(sizes, 32)}
    recipe["model"]["residual"]["width"] = 8
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    numbers = "--small 3 --large 8 --test 3 --seeds 1"
    arguments = f"{drawn} {numbers} --recipe {tmp_path}/tiny.yaml --folder {tmp_path}/runs"
    first, second = (run("imbalance", arguments) for _ in range(2))
    assert first.stdout.count("epoch 1/1") == 2, first.stderr
    assert "epoch" not in second.stdout
    tables = [done.stdout[done.stdout.index("3 photos of cat") :] for done in (first, second)]
    assert tables[0] == tables[1]
    assert all(word in tables[0] for word in ("recall of cat", "│ none", "│ balanced"))
    counts = json.loads((tmp_path / "runs/tiny-3-8-3/prepared/stats.json").read_text())["counts"]
    assert counts["test"] == {"cat": 3, "dog": 3}
    assert [counts["train"][name] + counts["val"][name] for name in ("cat", "dog")] == [3, 8]


def test_the_accuracy_of_the_imbalance_benchmark_has_the_proportions_of_the_training_set() -> None:
    classes = {"cat": {"accuracy": 0.5}, "dog": {"accuracy": 0.9}}
    found = imbalance.columns({"classes": classes, "balanced_accuracy": 0.7}, small=1, large=3)
    assert found == pytest.approx([0.5, 0.9, 0.7, 0.8])
