"""The batches of an epoch: their content, their seeds, and how photos get to the device."""

import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn import functional as F

from catdog.dataset.prepared import ChannelStats
from catdog.model.devices import keep_freed_memory
from catdog.model.inputs import resize
from catdog.params import Augmentation
from catdog.training import augmentation, batches, photo_store, seeds
from catdog.training.batches import Batch
from catdog.training.distributed import SINGLE, Group
from catdog.training.photo_store import PhotoStore

CPU = torch.device("cpu")
QUICK = hypothesis_settings(max_examples=25, deadline=None)
AS_IS = ChannelStats([0.0] * 3, [1.0] * 3)
PLAIN = Augmentation(
    crop_scale_min=1.0,
    crop_scale_max=1.0,
    crop_aspect=1.0,
    flip=0.0,
    rotation=0.0,
    fill="mirror",
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
)
VARIED = PLAIN.model_copy(
    update={"crop_scale_min": 0.4, "flip": 0.5, "rotation": 10.0, "contrast": 0.2}
)


def pixels(photos: int, side: int = 24) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (photos, side, side, 3), dtype=np.uint8)


def noise(photos: int, side: int = 24, memory: int | None = None) -> PhotoStore:
    """Photos of noise, each with its index as label; they are streamed if `memory` is 0."""
    return PhotoStore(pixels(photos, side), np.arange(photos, dtype=np.int64), CPU, memory)


def at(photos: PhotoStore, image_size: int) -> torch.Tensor:
    """All photos (N, 3, S, S) as resized for an image size."""
    photos.set_size(image_size)
    return next(iter(photos.batches(torch.arange(len(photos)), [slice(None)])))


def epoch(
    photos: PhotoStore,
    number: int = 0,
    *,
    settings: Augmentation = VARIED,
    normalization: ChannelStats = AS_IS,
    image_size: int = 16,
    batch_size: int = 5,
    seed: int = 1,
    first: int = 0,
    group: Group = SINGLE,
) -> list[Batch]:
    return list(
        batches.epoch_batches(
            photos,
            settings,
            normalization,
            image_size=image_size,
            batch_size=batch_size,
            seed=seed,
            epoch=number,
            first=first,
            group=group,
        )
    )


def content(made: Iterable[Batch]) -> list[tuple[bytes, list[int]]]:
    """The bytes of all inputs, and the labels."""
    return [(batch.inputs.numpy().tobytes(), batch.labels.tolist()) for batch in made]


def labels(made: Iterable[Batch]) -> list[int]:
    return [label for batch in made for label in batch.labels.tolist()]


def test_an_epoch_can_be_repeated_alone() -> None:
    photos = noise(12)
    in_a_row = [content(epoch(photos, number)) for number in range(3)]
    assert content(epoch(noise(12), 2)) == in_a_row[2]


def test_an_epoch_does_not_depend_on_earlier_ones() -> None:
    photos = noise(12)
    torch.manual_seed(5)
    forwards = [content(epoch(photos, number)) for number in (0, 1)]
    epoch(photos, 7, image_size=20)
    torch.rand(100)
    backwards = [content(epoch(photos, number)) for number in (1, 0)]
    assert backwards == forwards[::-1]


def test_an_epoch_does_not_use_torchs_global_generator() -> None:
    before = torch.get_rng_state()
    epoch(noise(12))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("number", "seed"), [(1, 1), (0, 2)])
def test_another_epoch_or_seed_has_another_order_and_other_transforms(
    number: int, seed: int
) -> None:
    photos = noise(12)
    one, other = epoch(photos), epoch(photos, number, seed=seed)
    assert labels(one) != labels(other)

    def by_label(made: list[Batch]) -> torch.Tensor:
        return torch.cat([batch.inputs for batch in made])[np.argsort(labels(made))]

    same = (by_label(one) == by_label(other)).flatten(1).all(1)
    assert not same.any()


def test_order_and_transforms_do_not_depend_on_the_batch_size() -> None:
    photos = noise(12)
    small, large = epoch(photos, batch_size=4), epoch(photos, batch_size=12)
    assert labels(small) == labels(large)
    torch.testing.assert_close(torch.cat([batch.inputs for batch in small]), large[0].inputs)


@QUICK
@given(photos=st.integers(1, 40), batch_size=st.integers(1, 50), number=st.integers(0, 3))
def test_every_photo_is_used_once_per_epoch_in_batches_of_nearly_equal_size(
    photos: int, batch_size: int, number: int
) -> None:
    made = epoch(noise(photos, 16), number, settings=PLAIN, batch_size=batch_size)
    assert sorted(labels(made)) == list(range(photos))
    sizes = [len(batch.inputs) for batch in made]
    assert max(sizes) <= batch_size or (batch_size, max(sizes)) == (2, 3)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == batches.steps_per_epoch(photos, batch_size)


@QUICK
@given(photos=st.integers(2, 60), batch_size=st.integers(2, 65))
def test_no_batch_is_a_single_photo_which_batch_norm_cannot_normalize(
    photos: int, batch_size: int
) -> None:
    made = epoch(noise(photos, 16), settings=PLAIN, batch_size=batch_size)
    assert min(batch.photos for batch in made) >= 2


def test_a_label_follows_its_photo() -> None:
    shades = np.arange(0, 240, 6, dtype=np.uint8)
    plain = np.broadcast_to(shades[:, None, None, None], (40, 24, 24, 3)).copy()
    photos = PhotoStore(plain, (shades % 7).astype(np.int64), CPU)
    settings = VARIED.model_copy(update={"contrast": 0.0})
    for batch in epoch(photos, settings=settings, image_size=24):
        seen = (batch.inputs[:, 0, 12, 12] * 255).round().long()
        assert torch.equal(batch.labels, seen % 7)


def test_normalization_is_invertible() -> None:
    mean, std = [0.48, 0.45, 0.4], [0.22, 0.23, 0.24]
    photos = noise(6)
    made = epoch(photos, settings=PLAIN, normalization=ChannelStats(mean, std), image_size=24)
    for batch in made:
        undone = batch.inputs * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        expected = at(photos, 24)[batch.labels]
        assert torch.equal((undone * 255).round().to(torch.uint8), expected)


def test_a_batch_has_the_dtype_and_memory_format_of_a_network_input() -> None:
    for batch in epoch(noise(12)):
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.shape[1:] == (3, 16, 16)
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.photos == len(batch.labels) == len(batch.inputs)
        assert batch.waited > 0


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize(("image_size", "side"), [(16, 20), (20, 25), (32, 40), (48, 48), (40, 48)])
def test_photos_are_resized_to_a_quarter_above_the_image_size(
    image_size: int, side: int, memory: int | None
) -> None:
    photos = noise(3, 48, memory)
    at(photos, 24)  # growing again starts from the stored photos, not from the shrunk ones
    kept = at(photos, image_size)
    stored = torch.from_numpy(pixels(3, 48)).permute(0, 3, 1, 2).float()
    expected = F.interpolate(stored, (side, side), mode="bilinear", antialias=True)
    assert kept.dtype == torch.uint8
    torch.testing.assert_close(kept.float(), expected.round(), atol=1, rtol=0)


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize("threads", [3, 16])
def test_photos_resized_in_several_threads_keep_their_order(
    threads: int, memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = at(noise(10), 16)
    monkeypatch.setattr(photo_store, "resize_threads", lambda device: threads)
    assert torch.equal(at(noise(10, memory=memory), 16), whole)


def count_resizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each resize adds its number of photos."""
    counts: list[int] = []

    def spy(photos: torch.Tensor, side: int) -> torch.Tensor:
        counts.append(len(photos))
        return resize(photos, side)

    monkeypatch.setattr(photo_store, "resize", spy)
    return counts


def test_a_resident_photo_is_resized_once_per_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos, counts = noise(23), count_resizes(monkeypatch)
    epoch(photos, 0, first=2)
    assert sum(counts) == 13
    epoch(photos, 1)
    epoch(photos, 2)
    assert sum(counts) == 23
    epoch(photos, 3, image_size=18)
    assert sum(counts) == 46


def test_a_process_resizes_only_the_photos_of_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, counts = noise(24), count_resizes(monkeypatch)
    epoch(photos, batch_size=4, group=Group(1, 2))
    assert sum(counts) == 12


def test_photos_are_resident_if_they_just_fit() -> None:
    needed = 10 * 3 * 20 * 20  # 16 px and a quarter
    assert noise(10, memory=needed).set_size(16)
    assert not noise(10, memory=needed - 1).set_size(16)


@pytest.mark.skipif(sys.platform != "linux", reason="is about glibc")
def test_another_size_frees_the_memory_of_the_old_one() -> None:
    keep_freed_memory()  # as training does: what malloc gives then stays in the process
    photos = PhotoStore(np.zeros((1000, 128, 128, 3), np.uint8), np.zeros(1000, np.int64), CPU)
    at(photos, 128)
    before = psutil.Process().memory_info().rss
    at(photos, 16)
    assert before - psutil.Process().memory_info().rss > 40_000_000  # of 49 MB


def test_photos_that_no_longer_fit_are_streamed() -> None:
    photos = noise(10, memory=10 * 3 * 20 * 20)
    assert [photos.set_size(image_size) for image_size in (16, 20, 20, 16)] == [
        True,
        False,
        False,
        True,
    ]


def test_streamed_photos_give_the_bytes_of_resident_ones() -> None:
    resident, streamed = noise(23, 40), noise(23, 40, memory=0)
    for number, image_size in enumerate((16, 16, 24, 40)):
        one, other = (epoch(p, number, image_size=image_size) for p in (resident, streamed))
        assert content(other) == content(one)


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_batches_of_photos_are_complete_and_in_order(count: int, memory: int | None) -> None:
    every = at(noise(20), 16)
    photos, order = (
        noise(20, memory=memory),
        torch.randperm(20, generator=seeds.make_generator(1)),
    )
    photos.set_size(16)
    wanted = [slice(at, at + 3) for at in range(0, 20, 3)][:count]
    for parts in (wanted, iter(wanted)):  # a list can be walked twice, an iterator only once
        came = list(photos.batches(order, parts))
        assert len(came) == count
        assert all(torch.equal(a, every[order[b]]) for a, b in zip(came, wanted, strict=True))


def test_a_batch_combines_resident_and_new_photos() -> None:
    every, photos = at(noise(20), 16), noise(20)
    photos.set_size(16)
    list(photos.batches(torch.tensor([3, 17, 4]), [slice(None)]))
    order = torch.tensor([4, 9, 17, 0, 3])
    (came,) = photos.batches(order, [slice(None)])
    assert torch.equal(came, every[order])


def test_closing_an_epoch_early_ends_its_helper_thread() -> None:
    photos = noise(12, memory=0)
    made = batches.epoch_batches(photos, PLAIN, AS_IS, image_size=16, batch_size=2, seed=1, epoch=0)
    next(made)
    assert any(thread.name.startswith("photos") for thread in threading.enumerate())
    made.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("photos") for thread in threading.enumerate())


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_the_next_batch_is_prepared_during_a_step(
    memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_made, transformed, apply = threading.Event(), [], augmentation.apply_transforms

    def spy(*arguments: Any) -> torch.Tensor:
        output = apply(*arguments)
        transformed.append(len(output))
        if len(transformed) == 2:
            second_made.set()
        return output

    monkeypatch.setattr(augmentation, "apply_transforms", spy)
    photos = noise(23, memory=memory)
    made = batches.epoch_batches(photos, PLAIN, AS_IS, image_size=16, batch_size=5, seed=1, epoch=0)
    next(made)
    assert second_made.wait(60)
    made.close()  # type: ignore[attr-defined]  # returns when all pending batches are finished
    assert len(transformed) == 2  # one ahead, no more


def test_preparing_batches_does_not_change_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        content(epoch(noise(23)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_the_helper_thread_is_raised_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any) -> torch.Tensor:
        raise MemoryError("no memory for a batch")

    monkeypatch.setattr(augmentation, "apply_transforms", fail)
    with pytest.raises(MemoryError, match="no memory for a batch"):
        content(epoch(noise(23)))


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize("first", [0, 1, 3, 4, 5])
def test_an_epoch_can_begin_at_any_batch(first: int, memory: int | None) -> None:
    photos = noise(23, memory=memory)
    whole = content(epoch(photos))
    assert len(whole) == 5
    assert content(epoch(photos, first=first)) == whole[first:]
    resumed = noise(23, memory=memory)
    assert content(epoch(resumed, first=first)) == whole[first:]
    assert content(epoch(resumed, 1)) == content(epoch(photos, 1))


@pytest.mark.parametrize("size", [2, 3])
def test_the_shards_of_a_group_make_up_the_batches_in_order(size: int) -> None:
    photos = noise(23)
    shares = [epoch(photos, group=Group(rank, size)) for rank in range(size)]
    for whole, *parts in zip(epoch(photos), *shares, strict=True):
        assert torch.cat([part.labels for part in parts]).tolist() == whole.labels.tolist()
        torch.testing.assert_close(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert {part.photos for part in parts} == {len(whole.labels)}
        sizes = [len(part.labels) for part in parts]
        assert max(sizes) - min(sizes) <= 1
