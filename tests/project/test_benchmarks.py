"""What the benchmarks promise: each runs and prints its table, and its arithmetic is right."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import imports, loader, measure, seed, step
from catdog import params
from catdog.errors import CatdogError
from catdog.model.devices import pick_device
from catdog.training import batches

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "memory": "--sizes 32 --batch-size 2 --steps 1 --trials 1",
    "ahead": "--sizes 32 --steps 2 --trials 1",
    "overhead": "--photos 40 --image-size 32 --trials 1",
    "loader": "--number 8 --sizes 32 --batch-size 4 --trials 1",
    "step": "--widths 8 --sizes 32 --batch-size 2 --matmuls 64 --trials 1",
    "seed": "--timed 4 --number 4 --image-size 16 --hidden-width 8 --epochs 1 --trials 1",
}
TABLES = {
    "memory": ("2 photos at 32 px", "handed back", "kept", "×"),
    "ahead": ("2 steps at 32 px", "between the steps", "beside the steps", "waiting"),
    "overhead": ("40 photos", "seconds of the command", "of its epoch", "overhead"),
    "loader": ("ImageFolder, 2 workers", "catdog, 1 thread", "decoding ahead of time", "×"),
    "step": ("matrices of 64 × 64", "residual, width 8, 32 px, batch 2", "100.0%"),
    "seed": ("notebook", "here", "difference", "times the noise", "×"),
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
    from tools.draw_sample import draw_sample

    folder = tmp_path_factory.mktemp("drawn") / "raw"
    draw_sample(folder, 24)
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_each_script_says_on_what_it_ran_and_prints_its_ratios(name: str) -> None:
    done = run(name, SETTINGS[name])
    assert done.returncode == 0, done.stderr
    assert f"torch {torch.__version__}" in done.stdout.splitlines()[0]
    assert [words for words in TABLES[name] if words not in done.stdout] == []


def test_make_bench_runs_every_short_script_and_no_helper() -> None:
    command = ["make", "--dry-run", "bench"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = shown.split("for name in ")[1].split(";")[0].split()
    scripts = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert set(names) == scripts - {"measure", "orchestration"}


def test_a_mistake_of_the_user_is_one_line(tmp_path: Path) -> None:
    def main() -> None:
        with measure.photo_folder(tmp_path / "missing", 8):
            pass

    with pytest.raises(SystemExit, match=r"^catdog: [^\n]*missing: no such folder[^\n]*$"):
        measure.start(main)


def test_trials_take_turns_after_one_that_is_not_counted() -> None:
    ran: list[str] = []
    names = ["slow", "fast"]
    costs = measure.interleaved({name: partial(ran.append, name) for name in names}, trials=3)
    assert ran == names * 4
    assert {name: len(values) for name, values in costs.items()} == {"slow": 3, "fast": 3}


def test_the_median_is_taken_of_seconds_and_of_cpu_seconds_apart() -> None:
    costs = [measure.Cost(1, 30), measure.Cost(2, 10), measure.Cost(9, 20)]
    assert measure.median_of(costs) == measure.Cost(2, 20)


def test_the_work_of_child_processes_counts_as_cpu_time() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    cost = measure.cost_of(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert cost.cpu_seconds >= 0.4


def test_a_folder_of_photos_is_cut_to_the_number_asked_for(drawn: Path) -> None:
    (drawn / "cat" / "aaa.jpg").write_bytes(b"no photo")  # passed over
    with measure.photo_folder(drawn, 6) as folder:
        found = sorted(file.parent.name for file in folder.glob("*/*.jpg"))
        assert not (folder / "cat" / "aaa.jpg").exists()
    assert found == ["cat"] * 3 + ["dog"] * 3
    assert not folder.exists()


def test_too_few_photos_are_a_mistake_and_not_a_smaller_benchmark(drawn: Path) -> None:
    with pytest.raises(CatdogError, match="smaller --number"), measure.photo_folder(drawn, 1000):
        pass


@pytest.mark.parametrize("middle", [1.5, 3.0, 30.0])
def test_shares_of_a_gain_sum_to_one(middle: float) -> None:
    assert sum(loader.shares_of_gain(1, middle, 30)) == pytest.approx(1)


def test_two_equal_factors_share_a_gain_equally() -> None:
    assert loader.shares_of_gain(2, 8, 32) == pytest.approx((0.5, 0.5))


def test_all_ways_of_loading_make_the_same_kind_of_batches(drawn: Path) -> None:
    torch.manual_seed(1)  # torchvision draws from torch's own generator
    augmentation = params.load(ROOT / "recipes" / "real.yaml").augmentation
    setting = loader.Setting(augmentation.model_copy(update={"fill": "black"}), 32, 8)
    with measure.photo_folder(drawn, 24) as folder:
        photos = batches.Photos(*loader.pack(folder, 32), torch.device("cpu"))
        epochs = loader.contenders(folder, photos, setting)
        means = {}
        for name, start in epochs.items():
            found = [b.inputs if isinstance(b, batches.Batch) else b[0] for b in start()]
            pixels = torch.cat(found)
            assert pixels.shape == (24, 3, 32, 32)
            means[name] = [pixels.mean().item(), pixels.std().item()]
    expected = means[loader.TORCHVISION]
    for values in means.values():  # views are random, but means over 24 photos hardly differ
        assert values == pytest.approx(expected, abs=0.15)


def test_a_multiply_add_counts_as_two_operations() -> None:
    device = pick_device("float32", "cpu")
    assert step.prepare_matmul(8, device)[0] == 2 * 8**3


def test_the_flops_of_a_step_grow_with_the_photos_and_with_the_pixels() -> None:
    recipe = step.with_width(params.load(ROOT / "recipes" / "real.yaml"), 8)
    device = pick_device("float32", "cpu")
    two, four, six, larger = (
        step.prepare_step(recipe, size, photos, device)[0]
        for size, photos in ((32, 2), (32, 4), (32, 6), (64, 2))
    )
    two_photos = four - two  # Muon's products are the same for any number of photos
    assert six - four == two_photos > 0
    assert larger - two == pytest.approx(3 * two_photos, rel=0.01)


def test_both_trainings_start_from_the_same_weights(drawn: Path) -> None:
    recipe = seed.with_hidden_width(params.load(ROOT / "recipes" / "seed.yaml"), 8)
    with measure.photo_folder(drawn, 4) as folder:
        small = seed.with_image_size(recipe, 16)
        trainings = seed.both(folder, small, pick_device("float32", "cpu"), 1)
    old, new = trainings["notebook"], trainings["here"]
    assert isinstance(old, seed.Notebook) and isinstance(new, seed.Here)
    pairs = zip(old.network.parameters(), new.learner.network.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_noise_is_the_chance_difference_of_two_means_over_seeds() -> None:
    generator = np.random.default_rng(0)
    trials = generator.normal(0, 0.1, (400, 2, 5, 3))  # way, seed, epoch
    gaps = trials[:, 1].mean(1) - trials[:, 0].mean(1)
    noises = [seed.noise_of(trial.tolist()) for trial in trials]
    assert np.mean(noises) == pytest.approx(gaps.std(), rel=0.1)


def test_an_import_counts_the_photos_it_took_in(drawn: Path) -> None:
    assert imports.import_once(drawn, workers=1) == 24
