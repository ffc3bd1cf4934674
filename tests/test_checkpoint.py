"""Checkpoints: written whole, found only by the training that wrote them, exact when restored."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from catdog import checkpoint, networks, optim
from catdog.checkpoint import State
from catdog.params import Optimizer, ResidualNetwork

STATE = State(
    {"weights": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    {"history": [[1, 0.123456789012345]], "name": "кошка"},
)


def same(one: State | None, other: State | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        one.numbers == other.numbers
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new folder/a.safetensors"
    checkpoint.save(path, STATE)
    assert same(checkpoint.load(path), STATE)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_keep_their_type(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", State({"x": torch.ones(2, 2).to(dtype)}, {}))
    loaded = checkpoint.load(tmp_path / "a")
    assert loaded is not None
    assert loaded.tensors["x"].dtype == dtype


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "a") is None


def test_an_error_while_writing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, STATE)

    def die_halfway(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", die_halfway)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(path, State({}, {}))
    assert same(checkpoint.load(path), STATE)
    assert list(tmp_path.iterdir()) == [path]


DIES_WHILE_WRITING = """
import resource, signal, sys, torch
from pathlib import Path
from catdog import checkpoint
def save(number):
    tensors = {"x": torch.full((300, 1000), float(number))}
    checkpoint.save(Path(sys.argv[1]), checkpoint.State(tensors, {"number": number}))
save(1)
# The kernel kills the process at the 100,000th of 1,200,000 bytes.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save(2)
"""


def test_a_kill_in_the_middle_of_writing_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, str(path)], check=False)
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
    torch.save(STATE.tensors, path)


def without_numbers(path: Path) -> None:
    save_file(STATE.tensors, path)


def with_broken_numbers(path: Path) -> None:
    save_file(STATE.tensors, path, metadata={"numbers": "{"})


@pytest.mark.parametrize(
    "damage",
    [cut, cut_in_header, empty, garbage, pickled, without_numbers, with_broken_numbers],
)
def test_a_damaged_one_is_none(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, STATE)
    damage(path)
    assert checkpoint.load(path) is None


def test_the_key_changes_with_each_part() -> None:
    keys = {
        checkpoint.key_of(*parts)
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
    assert checkpoint.key_of("params", b"photos") == checkpoint.key_of("params", b"photos")


def test_the_key_changes_with_the_code_that_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(checkpoint.__file__).parent
    before = checkpoint.key_of("params")
    copy = shutil.copytree(package, tmp_path / "copy")
    monkeypatch.setattr(checkpoint, "__file__", str(copy / "checkpoint.py"))
    assert checkpoint.key_of("params") == before
    for module in ("augment", "batches", "devices", "networks", "optim", "train", "trained"):
        file = copy / f"{module}.py"
        file.write_text(file.read_text() + "# changed\n")
        assert checkpoint.key_of("params") != before, module
        shutil.copy(package / f"{module}.py", file)
    (copy / "cli.py").write_text("# changed\n")  # computes nothing
    assert checkpoint.key_of("params") == before


KINDS = [
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "sgd", "momentum": 0.0, "nesterov": False},
    {"name": "adam", "momentum": 0.9, "nesterov": False},
    {"name": "adamw", "momentum": 0.9, "nesterov": False},
]


class Training:
    """A network and its optimizer, which make the same steps whoever runs them."""

    def __init__(self, kind: dict[str, object]) -> None:
        torch.manual_seed(0)
        small = ResidualNetwork(width=8, blocks=1, dropout=0.0)
        self.network = networks.Residual(small, 2).to(memory_format=torch.channels_last)
        rest = {"lr": 0.01, "weight_decay": 0.01, "decay_norm_and_bias": False}
        settings = Optimizer.model_validate({**kind, **rest})
        self.optimizer = optim.build_optimizer(settings, self.network)

    def steps(self, numbers: range) -> None:
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            photos = torch.rand(4, 3, 16, 16, generator=generator)
            self.optimizer.zero_grad()
            self.network(photos).pow(2).sum().backward()
            self.optimizer.step()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['name']} {kind['momentum']}")
def test_a_restored_optimizer_goes_on_to_the_byte(kind: dict[str, object], tmp_path: Path) -> None:
    whole = Training(kind)
    whole.steps(range(5))

    first = Training(kind)
    first.steps(range(3))
    tensors = {
        **checkpoint.prefixed("network", first.network.state_dict()),
        **checkpoint.prefixed("optimizer", checkpoint.flatten_optimizer(first.optimizer)),
    }
    checkpoint.save(tmp_path / "a", State(tensors, {}))

    second = Training(kind)
    state = checkpoint.load(tmp_path / "a")
    assert state is not None
    second.network.load_state_dict(checkpoint.with_prefix("network", state.tensors))
    restored = checkpoint.with_prefix("optimizer", state.tensors)
    checkpoint.restore_optimizer(second.optimizer, restored)
    second.steps(range(3, 5))

    expected = whole.network.state_dict()
    for name, value in second.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_restored_optimizer_keeps_its_own_settings() -> None:
    one, other = Training(KINDS[0]), Training(KINDS[0])
    one.steps(range(1))
    optim.set_lr(one.optimizer, 0.5)
    checkpoint.restore_optimizer(other.optimizer, checkpoint.flatten_optimizer(one.optimizer))
    assert {group["lr"] for group in other.optimizer.param_groups} == {0.01}
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.01, 0.0]


def test_prefixes_keep_tensors_of_the_same_name_apart() -> None:
    one, other = {"x": torch.zeros(1)}, {"x": torch.ones(1), "y:z": torch.ones(2)}
    together = {**checkpoint.prefixed("a", one), **checkpoint.prefixed("ab", other)}
    assert checkpoint.with_prefix("a", together).keys() == {"x"}
    assert checkpoint.with_prefix("ab", together).keys() == {"x", "y:z"}
    assert torch.equal(checkpoint.with_prefix("ab", together)["x"], torch.ones(1))


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", STATE)
    raw = (tmp_path / "a").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header.keys() == {"__metadata__", "weights", "steps"}
    assert json.loads(header["__metadata__"]["numbers"]) == STATE.numbers
