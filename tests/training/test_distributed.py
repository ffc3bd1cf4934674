"""Distributed training gives the results of one process, and only rank 0 writes files."""

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from catdog import params
from catdog.dataset.prepared import ChannelStats
from catdog.errors import CatdogError
from catdog.paths import HISTORY, MODELS, PREPARED
from catdog.training import batches, distributed, sync_batch_norm
from catdog.training import train as stage
from catdog.training.distributed import SINGLE, Group
from catdog.training.photo_store import PhotoStore
from tests.helpers.prepared_data import settings
from tests.helpers.small_training import create_project, finish, losses, run_in, train


def epoch(group: Group, augmentation: params.Augmentation) -> list[batches.Batch]:
    """One epoch over 21 different photos, in 3 batches of 7."""
    pixels = torch.arange(21 * 32 * 32 * 3).reshape(21, 32, 32, 3).remainder(251).byte().numpy()
    photos = PhotoStore(pixels, torch.arange(21).numpy(), torch.device("cpu"))
    normalization = ChannelStats([0.5] * 3, [0.5] * 3)
    return list(
        batches.epoch_batches(
            photos,
            augmentation,
            normalization,
            image_size=16,
            batch_size=8,
            seed=1,
            epoch=0,
            group=group,
        )
    )


@pytest.mark.parametrize("size", [2, 3])
def test_transforms_and_batches_do_not_depend_on_the_number_of_processes(size: int) -> None:
    augmentation = settings().augmentation
    whole = epoch(SINGLE, augmentation)
    shares = [epoch(Group(rank, size), augmentation) for rank in range(size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
        assert {part.photos for part in parts} == {len(batch.labels)}


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shards_are_complete_and_differ_by_one_at_most(count: int, size: int) -> None:
    shares = [list(range(count))[Group(rank, size).shard(count)] for rank in range(size)]
    assert [thing for share in shares for thing in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("name", "weights"), [("residual", "none"), ("seed", "balanced")])
def test_two_processes_have_the_losses_of_one_and_rank_0_writes(
    name: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = (
        create_project(tmp_path / end, name, large=6, train__epochs=1, train__class_weights=weights)
        for end in ("one", "two")
    )
    monkeypatch.chdir(alone)
    stage.train(params.load(), PREPARED, MODELS, HISTORY)
    log = train(together, "--devices", "2")
    assert losses(together) == pytest.approx(losses(alone), abs=1e-5)
    assert log.count("epoch 1/1") == 1
    files = [str(file.relative_to(together)) for file in together.rglob("*") if file.is_file()]
    written = sorted(file for file in files if not file.startswith(("data/", ".catdog/locks/")))
    assert written == [
        "models/model.json",
        "models/model.safetensors",
        "params.yaml",
        "reports/train/history.csv",
        "reports/train/timing.csv",
    ]


SHARED_NORM = """
import torch
from pathlib import Path
from torch import nn
from catdog.training import sync_batch_norm
from catdog.training import distributed
from catdog.support.stop_signals import StopRequest

group, cpu = distributed.from_environment(), torch.device("cpu")
photos, weights = torch.load("inputs.pt")
norm = sync_batch_norm.with_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), group, cpu)
with distributed.joined(group, cpu, StopRequest()):
    mine = photos[group.shard(len(photos))].clone().requires_grad_()
    out = norm(mine)
    (out * weights[group.shard(len(photos))]).sum().backward()
    parts = group.all_gather((out.detach(), mine.grad))
    grads = [group.all_reduce(weight.grad) for weight in norm.parameters()]
    if group.is_main:
        torch.save([parts, grads, norm.state_dict()], "results.pt")
"""


def test_sync_batch_norm_and_its_gradients_match_the_whole_batch(tmp_path: Path) -> None:
    """Shards of 2 and 3 photos, with a mean far from 0, against torch's batch norm on all 5."""
    generator = torch.Generator().manual_seed(1)
    photos, weights = (torch.randn(5, 3, 4, 4, generator=generator) for _ in range(2))
    photos = (photos + 3).requires_grad_()
    norm = nn.Sequential(nn.BatchNorm2d(3))
    out = norm(photos)
    (out * weights).sum().backward()
    torch.save([photos.detach(), weights], tmp_path / "inputs.pt")
    (tmp_path / "work.py").write_text(SHARED_NORM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "work.py"]
    code, _, err = finish(run_in(tmp_path, *launcher))
    assert code == 0, err
    parts, grads, state = torch.load(tmp_path / "results.pt")
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    close(torch.cat([part[0] for part in parts]), out.detach())
    close(torch.cat([part[1] for part in parts]), photos.grad)
    close(grads, [weight.grad for weight in norm.parameters()])
    close(state, norm.state_dict())


def test_a_sync_batch_norm_keeps_weights_and_outputs_of_the_replaced_one() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    norm(torch.randn(4, 3, 8, 8))
    plain = nn.Sequential(norm).eval()
    shared = sync_batch_norm.with_sync_batch_norm(
        nn.Sequential(norm), Group(0, 2), torch.device("cpu")
    ).eval()
    inputs = torch.randn(2, 3, 8, 8)
    assert type(shared[0]) is sync_batch_norm.SyncBatchNorm2d  # type: ignore[index]
    assert torch.equal(shared(inputs), plain(inputs))
    assert list(shared.state_dict()) == list(plain.state_dict())


def test_the_error_of_more_processes_than_photos_in_a_batch_is_one_line() -> None:
    with pytest.raises(
        CatdogError, match=r"3 processes cannot share batches of 2 photos.*train\.batch_size"
    ):
        distributed.check_batch_is_large_enough(Group(0, 3), 2)
    distributed.check_batch_is_large_enough(Group(0, 3), 3)


def test_the_group_is_read_from_the_launchers_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.from_environment() == SINGLE
    monkeypatch.setenv("WORLD_SIZE", "8")  # set by other programs, too
    assert distributed.from_environment() == SINGLE
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    assert distributed.from_environment() == Group(5, 8, 1, 4)
