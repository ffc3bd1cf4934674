"""Views of photos against torchvision's, photo by photo, and what they are drawn from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from catdog.params import Augmentation
from catdog.training import augmentation
from catdog.training.augmentation import Views

SIDE = 64
QUICK = hypothesis_settings(max_examples=15, deadline=None)


def params_of(**changes: object) -> Augmentation:
    """Settings that change nothing, but for `changes`."""
    identity: dict[str, object] = {
        "crop_scale_min": 1.0,
        "crop_scale_max": 1.0,
        "crop_aspect": 1.0,
        "flip": 0.0,
        "rotation": 0.0,
        "fill": "black",
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
    }
    return Augmentation.model_validate({**identity, **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(photos: int, side: int = SIDE, seed: int = 0) -> Tensor:
    """Photos (N, 3, side, side) in which every pixel differs from its neighbours."""
    shape = (photos, 3, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def smooth(photos: int) -> Tensor:
    """Photos (N, 3, SIDE, SIDE) whose second resampling changes little."""
    coarse = torch.rand((photos, 3, 4, 4), generator=generator(3))
    fine = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8)


def midtones(photos: int) -> Tensor:
    """Photos (N, 3, SIDE, SIDE) of values so far from 0 and 1 that FACTORS lead to neither."""
    return 90 + noise(photos) // 7


def floats(photos: Tensor) -> Tensor:
    """The same photos as torchvision takes them: in [0, 1]."""
    return photos.float() / 255


def views(
    boxes: list[tuple[int, int, int, int]] | None = None,
    mirrored: list[bool] | None = None,
    degrees: list[float] | None = None,
) -> Views:
    """Views of SIDE × SIDE photos; a box is (top, left, height, width) as in torchvision."""
    photos = len(boxes or mirrored or degrees or [])
    top, left, height, width = torch.tensor(boxes or [(0, 0, SIDE, SIDE)] * photos).float().T
    centre = torch.stack([left + width / 2, top + height / 2], 1) / SIDE * 2 - 1
    half = torch.stack([width, height], 1) / SIDE
    flips = torch.tensor(mirrored or [False] * photos)
    turns = torch.tensor(degrees or [0.0] * photos)
    return Views(augmentation.affine_maps(centre, half, flips, turns), torch.ones(photos, 3))


@QUICK
@given(side=st.integers(16, 80), fill=st.sampled_from(["black", "edge", "mirror"]))
def test_settings_of_nothing_give_the_photos_back(side: int, fill: str) -> None:
    photos = noise(2, side)
    drawn = augmentation.draw(params_of(fill=fill), 2, generator())
    seen = augmentation.render(photos, drawn, side, fill)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, floats(photos), atol=2e-5, rtol=0)


@QUICK
@given(degrees=st.floats(-180, 180, width=32))
def test_a_rotation_is_torchvisions(degrees: float) -> None:
    photos = noise(1)
    seen = augmentation.render(photos, views(degrees=[degrees]), SIDE, "black")
    expected = TF.rotate(floats(photos), degrees, InterpolationMode.BILINEAR)
    torch.testing.assert_close(seen, expected, atol=2e-4, rtol=0)


def test_a_rotation_by_positive_degrees_turns_to_the_left() -> None:
    photos = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    photos[0, :, :8, 28:36] = 255  # white at the top
    seen = augmentation.render(photos, views(degrees=[90.0]), SIDE, "black")
    assert seen[0, :, 30:34, :6].min() > 0.99
    assert seen.sum() == pytest.approx(3 * 8 * 8, rel=1e-3)


@QUICK
@given(data=st.data(), image_size=st.sampled_from([16, 24, 32]))
def test_a_crop_is_torchvisions(data: st.DataObject, image_size: int) -> None:
    height = data.draw(st.integers(image_size, SIDE))
    width = data.draw(st.integers(image_size, SIDE))
    top, left = data.draw(st.integers(0, SIDE - height)), data.draw(st.integers(0, SIDE - width))
    photos = noise(1)
    seen = augmentation.render(photos, views([(top, left, height, width)]), image_size, "black")
    size = [image_size, image_size]
    expected = TF.resized_crop(floats(photos), top, left, height, width, size, antialias=False)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)


def test_a_flip_is_torchvisions() -> None:
    photos = noise(3)
    seen = augmentation.render(photos, views(mirrored=[True, False, True]), SIDE, "edge")
    expected = floats(photos)
    expected[[0, 2]] = TF.hflip(expected[[0, 2]])
    assert torch.equal((seen * 255).round(), (expected * 255).round())


def test_rotation_crop_and_flip_compose_as_torchvisions_do() -> None:
    boxes = [(20, 14, 24, 36), (14, 20, 34, 26), (16, 16, 32, 32), (22, 12, 28, 36)]
    flips, degrees = [True, False, True, False], [30.0, -25.0, 10.0, 14.0]
    photos = smooth(4)
    seen = augmentation.render(photos, views(boxes, flips, degrees), 24, "black")
    for index, photo in enumerate(floats(photos)):
        turned = TF.rotate(photo, degrees[index], InterpolationMode.BILINEAR)
        expected = TF.resized_crop(turned, *boxes[index], [24, 24], antialias=False)
        if flips[index]:
            expected = TF.hflip(expected)
        # One resampling against torchvision's two: not the same pixels, but nearly.
        torch.testing.assert_close(seen[index], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("fill", "numpy_mode"), [("black", "constant"), ("edge", "edge"), ("mirror", "symmetric")]
)
def test_beyond_the_edges_is_what_numpy_pads_with(fill: str, numpy_mode: str) -> None:
    photos, beyond = noise(1), SIDE // 2
    seen = augmentation.render(photos, views(degrees=[45.0]), SIDE, fill)
    around = [(0, 0), (0, 0), (beyond, beyond), (beyond, beyond)]
    padded = torch.from_numpy(np.pad(photos.numpy(), around, mode=numpy_mode))  # type: ignore[call-overload]
    turned = TF.rotate(floats(padded), 45.0, InterpolationMode.BILINEAR)
    torch.testing.assert_close(seen, TF.center_crop(turned, [SIDE, SIDE]), atol=2e-4, rtol=0)
    assert bool((seen[0, :, 0, 0] == 0).all()) == (fill == "black")


FACTORS = torch.tensor([[1.3, 0.7, 1.4], [0.6, 1.5, 0.5], [1.0, 1.0, 1.6], [1.7, 1.4, 1.3]])


def torchvisions_colours(view: Tensor, factors: list[float]) -> Tensor:
    """Return a view (3, H, W) with torchvision's three adjustments, none of which may clip."""
    for adjust, factor in zip(
        (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation), factors, strict=True
    ):
        view = adjust(view, factor)
        assert view[view != 0].min() > 0
        assert view.max() < 1
    return view


@pytest.mark.parametrize("column", [0, 1, 2], ids=["brightness", "contrast", "saturation"])
def test_each_colour_factor_is_torchvisions(column: int) -> None:
    photos, seen_as = midtones(4), views(mirrored=[False] * 4)
    seen_as.colour[:, column] = FACTORS[:, column]
    seen = augmentation.render(photos, seen_as, SIDE, "edge")
    for index, factors in enumerate(seen_as.colour.tolist()):
        expected = torchvisions_colours(floats(photos[index]), factors)
        torch.testing.assert_close(seen[index], expected, atol=1e-4, rtol=0)


def test_colour_factors_act_in_the_order_brightness_contrast_saturation() -> None:
    photos, seen_as = midtones(4), views(mirrored=[False] * 4)
    seen = augmentation.render(photos, Views(seen_as.affine, FACTORS), SIDE, "edge")
    for index, factors in enumerate(FACTORS.tolist()):
        expected = torchvisions_colours(floats(photos[index]), factors)
        torch.testing.assert_close(seen[index], expected, atol=1e-4, rtol=0)


def test_colours_follow_the_view_and_its_black_corners_count_for_contrast() -> None:
    photos, colour = midtones(2), torch.tensor([[1.3, 0.7, 1.4], [0.6, 0.8, 0.5]])
    uncoloured = views([(4, 8, 48, 48), (16, 2, 40, 60)], degrees=[30.0, -45.0])
    seen = augmentation.render(photos, Views(uncoloured.affine, colour), 32, "black")
    plain = augmentation.render(photos, uncoloured, 32, "black")
    assert (plain == 0).any()
    for index, factors in enumerate(colour.tolist()):
        expected = torchvisions_colours(plain[index], factors)
        torch.testing.assert_close(seen[index], expected, atol=1e-4, rtol=0)


def test_black_corners_stay_black_whatever_the_brightness_and_saturation() -> None:
    photos, mean, std = noise(2), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    turned = views(degrees=[45.0, 45.0])
    turned.colour[:] = torch.tensor([1.5, 1.0, 0.5])
    seen = augmentation.render(photos, turned, SIDE, "black", mean, std)
    black = -torch.tensor(mean) / torch.tensor(std)
    torch.testing.assert_close(seen[:, :, 0, 0], black.expand(2, 3))


def test_normalization_is_applied_to_the_coloured_view() -> None:
    photos, mean, std = noise(4), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    drawn = augmentation.draw(params_of(rotation=20.0, crop_scale_min=0.5), 4, generator())
    drawn = Views(drawn.affine, FACTORS)
    plain = augmentation.render(photos, drawn, 32, "mirror")
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    seen = augmentation.render(photos, drawn, 32, "mirror", mean, std)
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=1e-5)


def test_rendering_leaves_photos_and_views_as_they_were() -> None:
    photos, drawn = noise(4), Views(views(degrees=[10.0] * 4).affine, FACTORS.clone())
    before = photos.clone(), drawn.affine.clone(), drawn.colour.clone()
    augmentation.render(photos, drawn, 32, "mirror", [0.5] * 3, [0.5] * 3)
    after = photos, drawn.affine, drawn.colour
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@QUICK
@given(photos=st.integers(1, 3), image_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_the_sampling_grid_is_torchs_affine_grid(photos: int, image_size: int, seed: int) -> None:
    affine = torch.randn(photos, 2, 3, generator=generator(seed))
    expected = F.affine_grid(affine, [photos, 3, image_size, image_size], align_corners=False)
    grid = augmentation.sampling_grid(*augmentation.grid_axes(affine, image_size))
    torch.testing.assert_close(grid, expected, atol=2e-6, rtol=1e-6)


def test_each_photo_of_a_batch_gets_its_own_view() -> None:
    changes = {"crop_scale_min": 0.5, "rotation": 30.0, "brightness": 0.3, "contrast": 0.3}
    drawn = augmentation.draw(params_of(**changes), 50, generator())
    assert len(torch.unique(drawn.affine, dim=0)) == 50
    assert len(torch.unique(drawn.colour, dim=0)) == 50
    seen = augmentation.render(noise(1).expand(50, -1, -1, -1), drawn, 16, "black")
    assert len(torch.unique(seen, dim=0)) == 50


def test_a_view_does_not_depend_on_the_rest_of_the_batch() -> None:
    photos = noise(5)
    changes = {"crop_scale_min": 0.5, "rotation": 30.0, "flip": 0.5, "contrast": 0.3}
    drawn = augmentation.draw(params_of(**changes), 5, generator())
    together = augmentation.render(photos, drawn, 32, "mirror")
    chosen = torch.tensor([3])
    torch.testing.assert_close(
        augmentation.render(photos[chosen], drawn[chosen], 32, "mirror"), together[chosen]
    )


@QUICK
@given(
    low=st.floats(0.01, 1), high=st.floats(0.01, 1), aspect=st.floats(1, 4), seed=st.integers(0, 99)
)
def test_boxes_stay_inside_the_photo(low: float, high: float, aspect: float, seed: int) -> None:
    low, high = sorted([low, high])
    changes = params_of(crop_scale_min=low, crop_scale_max=high, crop_aspect=aspect)
    centre, half = augmentation.draw_boxes(changes, 200, generator(seed))
    assert (half > 0).all()
    assert (centre.abs() + half <= 1 + 1e-6).all()
    whole = (half == 1).all(1)
    area, ratio = half.prod(1), half[:, 0] / half[:, 1]
    inside = (area >= low * 0.999) & (area <= high * 1.001) | whole
    assert inside.all()
    assert ((ratio <= aspect * 1.001) & (ratio >= 0.999 / aspect)).all()


def uniform(sample: Tensor, low: float, high: float) -> float:
    """The p-value of a sample's being drawn uniformly from [low, high]."""
    return float(stats.kstest(sample.numpy(), stats.uniform(low, high - low).cdf).pvalue)


def test_area_log_aspect_and_place_of_boxes_are_uniform() -> None:
    # The widest box is sqrt(0.5 · 4/3) = 0.82 of the side: all fit, so that none is drawn again.
    changes = params_of(crop_scale_min=0.2, crop_scale_max=0.5, crop_aspect=4 / 3)
    centre, half = augmentation.draw_boxes(changes, 5000, generator())
    widest = math.log(4 / 3)
    assert uniform(half.prod(1), 0.2, 0.5) > 0.01
    assert uniform((half[:, 0] / half[:, 1]).log(), -widest, widest) > 0.01
    for axis in (0, 1):
        assert uniform(centre[:, axis] / (1 - half[:, axis]), -1, 1) > 0.01


def test_a_box_that_never_fits_becomes_the_whole_photo() -> None:
    changes = params_of(crop_scale_min=1.0, crop_scale_max=1.0, crop_aspect=2.0)
    centre, half = augmentation.draw_boxes(changes, 100, generator())
    assert (half == 1).all()
    assert (centre == 0).all()


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_happen_as_often_as_set(probability: float) -> None:
    drawn = augmentation.draw(params_of(flip=probability), 10_000, generator())
    mirrored = (drawn.affine[:, 0, 0] < 0).float().mean().item()
    # Five standard deviations of a share of 10,000.
    assert abs(mirrored - probability) <= 5 * math.sqrt(probability * (1 - probability) / 10_000)


def test_rotations_are_uniform_to_both_sides() -> None:
    drawn = augmentation.draw(params_of(rotation=30.0), 5000, generator())
    degrees = torch.rad2deg(torch.atan2(drawn.affine[:, 1, 0], drawn.affine[:, 0, 0]))
    assert uniform(degrees, -30, 30) > 0.01


def test_colour_factors_are_uniform_around_one() -> None:
    changes = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3}
    drawn = augmentation.draw(params_of(**changes), 5000, generator())
    for column, strength in enumerate(changes.values()):
        assert uniform(drawn.colour[:, column], 1 - strength, 1 + strength) > 0.01


def test_a_generator_in_the_same_state_draws_the_same_views() -> None:
    changes = params_of(crop_scale_min=0.3, rotation=10.0, flip=0.5, saturation=0.2)
    first, second = (augmentation.draw(changes, 20, generator(7)) for _ in range(2))
    assert torch.equal(first.affine, second.affine)
    assert torch.equal(first.colour, second.colour)
