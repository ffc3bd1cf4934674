"""Checkpoints: written atomically, found only by the same training run, restored exactly."""

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from catdog import paths
from catdog.model import networks
from catdog.params import Optimizer, ResidualNetwork
from catdog.training import checkpoint, optimizers, resume
from catdog.training.checkpoint import Snapshot
from tests.helpers.small_disk import can_mount_small_disk, on_a_small_disk

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = resume.PACKAGE
SNAPSHOT = Snapshot(
    {"weights": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    {"history": [[1, 0.123456789012345]], "name": "кошка"},
)


def same(one: Snapshot | None, other: Snapshot | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        one.numbers == other.numbers
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    )


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "new folder/a.safetensors"
    checkpoint.save(path, SNAPSHOT)
    assert same(checkpoint.load(path), SNAPSHOT)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", Snapshot({"x": torch.ones(2, 2).to(dtype)}, {}))
    loaded = checkpoint.load(tmp_path / "a")
    assert loaded is not None
    assert loaded.tensors["x"].dtype == dtype


def test_remove_deletes_a_checkpoint_and_its_partial_files(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    for file in (path, other):
        checkpoint.save(file, SNAPSHOT)
        leftover = tmp_path / f".{file.name}.x7ab"
        leftover.mkdir()
        (leftover / ".tmpQ1w2e3").write_bytes(b"half")
    checkpoint.remove(path)
    assert {file.name for file in tmp_path.iterdir()} == {"b", ".b.x7ab"}


def test_removing_a_missing_checkpoint_is_allowed(tmp_path: Path) -> None:
    checkpoint.remove(tmp_path / "nowhere" / "a")


def test_a_missing_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "a") is None


def test_an_error_during_saving_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, SNAPSHOT)

    def fail_during_write(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail_during_write)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(path, Snapshot({}, {}))
    assert same(checkpoint.load(path), SNAPSHOT)
    assert list(tmp_path.iterdir()) == [path]


KILLED_WHILE_WRITING = """
import resource, signal, sys, torch
from pathlib import Path
from catdog.training import checkpoint
def save(number):
    tensors = {"x": torch.full((300, 1000), float(number))}
    checkpoint.save(Path(sys.argv[1]), checkpoint.Snapshot(tensors, {"number": number}))
save(1)
# The kernel kills the process at the 100,000th of 1,200,000 bytes.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save(2)
"""


def test_a_kill_during_saving_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    state = checkpoint.load(path)
    assert state is not None
    assert state.numbers == {"number": 1}
    assert torch.equal(state.tensors["x"], torch.full((300, 1000), 1.0))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def pickled(path: Path) -> None:
    torch.save(SNAPSHOT.tensors, path)


def without_numbers(path: Path) -> None:
    save_file(SNAPSHOT.tensors, path)


def with_broken_numbers(path: Path) -> None:
    save_file(SNAPSHOT.tensors, path, metadata={"numbers": "{"})


@pytest.mark.parametrize(
    "damage",
    [cut, cut_in_header, empty, garbage, pickled, without_numbers, with_broken_numbers],
)
def test_a_damaged_checkpoint_is_none(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, SNAPSHOT)
    damage(path)
    assert checkpoint.load(path) is None


CODE = {
    "prepare": (paths.PREPARE_CODE, "preparation/prepare"),
    "train": (paths.TRAIN_CODE, "training/train"),
    "evaluate": (paths.EVALUATE_CODE, "evaluation/evaluate"),
}
# Imported by stages, but unable to change what they compute: DVC and the key of a checkpoint see
# the values of params, not the code that reads them.
NO_DEPENDENCY = {"errors", "params", "paths", "support"}


def imported_by(module: str) -> set[str]:
    """The folders and top modules of catdog that a module imports, directly or not."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        found.add(name := waiting.pop())
        file = PACKAGE / f"{name}.py"
        source = file if file.is_file() else PACKAGE / name / "__init__.py"
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("catdog."):
                folder = str(node.module).removeprefix("catdog.").replace(".", "/")
                inside = [f"{folder}/{alias.name}" for alias in node.names]
                modules = [path for path in inside if (PACKAGE / f"{path}.py").is_file()]
                waiting |= set(modules or [folder]) - found
    return {name.partition("/")[0] for name in found}


@pytest.mark.parametrize("stage", CODE)
def test_a_stage_depends_on_every_folder_of_code_that_it_imports(
    stage: str,
) -> None:
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    code = tuple(Path(dep).name for dep in deps if dep.startswith("catdog/"))
    folders, module = CODE[stage]
    assert code == folders
    assert imported_by(module) - NO_DEPENDENCY == set(folders)
    assert deps == sorted(deps)


def test_train_does_not_depend_on_the_code_of_prepare() -> None:
    assert "preparation" not in paths.TRAIN_CODE


def test_the_key_changes_with_each_part() -> None:
    keys = {
        resume.checkpoint_key(*parts)
        for parts in (
            ("params", b"photos", "machine"),
            ("Params", b"photos", "machine"),
            ("params", b"photo", "machine"),
            ("params", b"photos", "machine2"),
            ("paramsp", b"hotos", "machine"),  # the same bytes, cut elsewhere
            ("params", b"photos"),
        )
    }
    assert len(keys) == 6
    assert resume.checkpoint_key("params", b"photos") == resume.checkpoint_key("params", b"photos")


def test_the_key_changes_with_the_code_that_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resume.checkpoint_key("params")
    copy = shutil.copytree(PACKAGE, tmp_path / "copy")
    monkeypatch.setattr(resume, "PACKAGE", copy)
    assert resume.checkpoint_key("params") == before
    for folder in {*paths.PREPARE_CODE, *paths.TRAIN_CODE}:
        for file in (copy / folder).glob("*.py"):
            text = file.read_text()
            file.write_text(text + "# changed\n")
            assert resume.checkpoint_key("params") != before, file
            file.write_text(text)
    (copy / "cli.py").write_text("# changed\n")  # computes nothing
    assert resume.checkpoint_key("params") == before


KINDS = [
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "sgd", "momentum": 0.0, "nesterov": False},
    {"name": "adam", "momentum": 0.9, "nesterov": False},
    {"name": "adamw", "momentum": 0.9, "nesterov": False},
    {"name": "muon", "momentum": 0.9, "nesterov": False},
]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


class Training:
    """A network and its optimizers, with deterministic steps."""

    def __init__(self, kind: dict[str, object], layout: str = "channels-last") -> None:
        torch.manual_seed(0)
        small = ResidualNetwork(width=8, blocks=1, dropout=0.0)
        self.network = networks.Residual(small, 2).to(memory_format=LAYOUTS[layout])
        rest = {"lr": 0.01, "rest_lr": 0.02, "weight_decay": 0.01, "decay_norm_and_bias": False}
        settings = Optimizer.model_validate({**kind, **rest})
        self.optimizers = optimizers.build_optimizers(settings, self.network)

    def steps(self, numbers: range) -> None:
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            photos = torch.rand(4, 3, 16, 16, generator=generator)
            self.network.zero_grad()
            self.network(photos).pow(2).sum().backward()
            for optimizer in self.optimizers:
                optimizer.step()

    def state(self) -> Snapshot:
        tensors = checkpoint.add_prefix("network", self.network.state_dict())
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.flatten_optimizer(optimizer)
            tensors |= checkpoint.add_prefix(f"optimizer{index}", flat)
        return Snapshot(tensors, {})

    def restore(self, state: Snapshot) -> None:
        self.network.load_state_dict(checkpoint.strip_prefix("network", state.tensors))
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.strip_prefix(f"optimizer{index}", state.tensors)
            checkpoint.restore_optimizer(optimizer, flat)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['name']} {kind['momentum']}")
def test_a_restored_optimizer_continues_with_the_same_bytes(
    kind: dict[str, object], layout: str, tmp_path: Path
) -> None:
    whole = Training(kind, layout)
    whole.steps(range(5))

    first = Training(kind, layout)
    first.steps(range(3))
    checkpoint.save(tmp_path / "a", first.state())
    second = Training(kind, layout)
    state = checkpoint.load(tmp_path / "a")
    assert state is not None
    second.restore(state)
    second.steps(range(3, 5))

    expected = whole.network.state_dict()
    for name, value in second.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_restored_optimizer_keeps_its_own_settings() -> None:
    one, other = Training(KINDS[-1]), Training(KINDS[-1])
    one.steps(range(1))
    optimizers.set_lr(one.optimizers, 0.5)
    other.restore(one.state())
    muon, sgd = ([dict(group) for group in o.param_groups] for o in other.optimizers)
    assert [(group["lr"], group["weight_decay"]) for group in muon] == [(0.01, 0.01)]
    assert [(group["lr"], group["weight_decay"]) for group in sgd] == [(0.02, 0.0)] * len(sgd)


def test_prefixes_separate_tensors_of_the_same_name() -> None:
    one, other = {"x": torch.zeros(1)}, {"x": torch.ones(1), "y:z": torch.ones(2)}
    together = {**checkpoint.add_prefix("a", one), **checkpoint.add_prefix("ab", other)}
    assert checkpoint.strip_prefix("a", together).keys() == {"x"}
    assert checkpoint.strip_prefix("ab", together).keys() == {"x", "y:z"}
    assert torch.equal(checkpoint.strip_prefix("ab", together)["x"], torch.ones(1))


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", SNAPSHOT)
    raw = (tmp_path / "a").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header.keys() == {"__metadata__", "weights", "steps"}
    assert json.loads(header["__metadata__"]["numbers"]) == SNAPSHOT.numbers


@pytest.mark.skipif(not can_mount_small_disk(), reason="needs user namespaces")
def test_a_full_disk_raises_os_error_and_the_command_prints_one_line(tmp_path: Path) -> None:
    code = """
import sys, torch
from pathlib import Path
from catdog.training import checkpoint
try:
    checkpoint.save(Path(sys.argv[1]) / "new/a", checkpoint.Snapshot({"x": torch.ones(99_999)}, {}))
except OSError as error:
    print(error, list(Path(sys.argv[1]).rglob("*.*")))
"""
    command = [*on_a_small_disk(tmp_path), sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert re.fullmatch(r".*/a: cannot be saved: .*No space left on device.* \[\]\n", done.stdout)
