"""Augmentation compared with torchvision's, photo by photo, and its random distributions."""

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
from catdog.training.augmentation import Transforms

SIDE = 64
QUICK = hypothesis_settings(max_examples=15, deadline=None)


def params_of(**changes: object) -> Augmentation:
    """Neutral settings, with changes."""
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
    """Smooth photos (N, 3, SIDE, SIDE), which a second resampling hardly changes."""
    coarse = torch.rand((photos, 3, 4, 4), generator=generator(3))
    fine = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().to(torch.uint8)


def midtones(photos: int) -> Tensor:
    """Photos (N, 3, SIDE, SIDE) of values that FACTORS do not clip."""
    return 90 + noise(photos) // 7


def floats(photos: Tensor) -> Tensor:
    """The same photos in [0, 1], as torchvision expects them."""
    return photos.float() / 255


def make_transforms(
    boxes: list[tuple[int, int, int, int]] | None = None,
    flipped: list[bool] | None = None,
    degrees: list[float] | None = None,
) -> Transforms:
    """Transforms of SIDE × SIDE photos; a box is (top, left, height, width) as in torchvision."""
    photos = len(boxes or flipped or degrees or [])
    top, left, height, width = torch.tensor(boxes or [(0, 0, SIDE, SIDE)] * photos).float().T
    centre = torch.stack([left + width / 2, top + height / 2], 1) / SIDE * 2 - 1
    half = torch.stack([width, height], 1) / SIDE
    flips = torch.tensor(flipped or [False] * photos)
    turns = torch.tensor(degrees or [0.0] * photos)
    return Transforms(augmentation.affine_maps(centre, half, flips, turns), torch.ones(photos, 3))


@QUICK
@given(side=st.integers(16, 80), fill=st.sampled_from(["black", "edge", "mirror"]))
def test_neutral_settings_return_the_photos_unchanged(side: int, fill: str) -> None:
    photos = noise(2, side)
    drawn = augmentation.draw_transforms(params_of(fill=fill), 2, generator())
    output = augmentation.apply_transforms(photos, drawn, side, fill)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, floats(photos), atol=2e-5, rtol=0)


@QUICK
@given(degrees=st.floats(-180, 180, width=32))
def test_rotation_matches_torchvision(degrees: float) -> None:
    photos = noise(1)
    output = augmentation.apply_transforms(
        photos, make_transforms(degrees=[degrees]), SIDE, "black"
    )
    expected = TF.rotate(floats(photos), degrees, InterpolationMode.BILINEAR)
    torch.testing.assert_close(output, expected, atol=2e-4, rtol=0)


def test_positive_degrees_rotate_counter_clockwise() -> None:
    photos = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    photos[0, :, :8, 28:36] = 255  # white at the top
    output = augmentation.apply_transforms(photos, make_transforms(degrees=[90.0]), SIDE, "black")
    assert output[0, :, 30:34, :6].min() > 0.99
    assert output.sum() == pytest.approx(3 * 8 * 8, rel=1e-3)


@QUICK
@given(data=st.data(), image_size=st.sampled_from([16, 24, 32]))
def test_crop_matches_torchvision(data: st.DataObject, image_size: int) -> None:
    height = data.draw(st.integers(image_size, SIDE))
    width = data.draw(st.integers(image_size, SIDE))
    top, left = data.draw(st.integers(0, SIDE - height)), data.draw(st.integers(0, SIDE - width))
    photos = noise(1)
    output = augmentation.apply_transforms(
        photos, make_transforms([(top, left, height, width)]), image_size, "black"
    )
    size = [image_size, image_size]
    expected = TF.resized_crop(floats(photos), top, left, height, width, size, antialias=False)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_flip_matches_torchvision() -> None:
    photos = noise(3)
    output = augmentation.apply_transforms(
        photos, make_transforms(flipped=[True, False, True]), SIDE, "edge"
    )
    expected = floats(photos)
    expected[[0, 2]] = TF.hflip(expected[[0, 2]])
    assert torch.equal((output * 255).round(), (expected * 255).round())


def test_rotation_crop_and_flip_compose_as_in_torchvision() -> None:
    boxes = [(20, 14, 24, 36), (14, 20, 34, 26), (16, 16, 32, 32), (22, 12, 28, 36)]
    flips, degrees = [True, False, True, False], [30.0, -25.0, 10.0, 14.0]
    photos = smooth(4)
    output = augmentation.apply_transforms(
        photos, make_transforms(boxes, flips, degrees), 24, "black"
    )
    for index, photo in enumerate(floats(photos)):
        turned = TF.rotate(photo, degrees[index], InterpolationMode.BILINEAR)
        expected = TF.resized_crop(turned, *boxes[index], [24, 24], antialias=False)
        if flips[index]:
            expected = TF.hflip(expected)
        # One resampling against torchvision's two: not the same pixels, but nearly.
        torch.testing.assert_close(output[index], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("fill", "numpy_mode"), [("black", "constant"), ("edge", "edge"), ("mirror", "symmetric")]
)
def test_padding_matches_numpy_pad(fill: str, numpy_mode: str) -> None:
    photos, beyond = noise(1), SIDE // 2
    output = augmentation.apply_transforms(photos, make_transforms(degrees=[45.0]), SIDE, fill)
    around = [(0, 0), (0, 0), (beyond, beyond), (beyond, beyond)]
    padded = torch.from_numpy(np.pad(photos.numpy(), around, mode=numpy_mode))  # type: ignore[call-overload]
    turned = TF.rotate(floats(padded), 45.0, InterpolationMode.BILINEAR)
    torch.testing.assert_close(output, TF.center_crop(turned, [SIDE, SIDE]), atol=2e-4, rtol=0)
    assert bool((output[0, :, 0, 0] == 0).all()) == (fill == "black")


FACTORS = torch.tensor([[1.3, 0.7, 1.4], [0.6, 1.5, 0.5], [1.0, 1.0, 1.6], [1.7, 1.4, 1.3]])


def torchvisions_colours(view: Tensor, factors: list[float]) -> Tensor:
    """Return a photo (3, H, W) after torchvision's three adjustments, which must not clip."""
    for adjust, factor in zip(
        (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation), factors, strict=True
    ):
        view = adjust(view, factor)
        assert view[view != 0].min() > 0
        assert view.max() < 1
    return view


@pytest.mark.parametrize("column", [0, 1, 2], ids=["brightness", "contrast", "saturation"])
def test_each_colour_factor_matches_torchvision(column: int) -> None:
    photos, transforms = midtones(4), make_transforms(flipped=[False] * 4)
    transforms.colour[:, column] = FACTORS[:, column]
    output = augmentation.apply_transforms(photos, transforms, SIDE, "edge")
    for index, factors in enumerate(transforms.colour.tolist()):
        expected = torchvisions_colours(floats(photos[index]), factors)
        torch.testing.assert_close(output[index], expected, atol=1e-4, rtol=0)


def test_colour_factors_are_applied_as_brightness_contrast_saturation() -> None:
    photos, transforms = midtones(4), make_transforms(flipped=[False] * 4)
    output = augmentation.apply_transforms(
        photos, Transforms(transforms.affine, FACTORS), SIDE, "edge"
    )
    for index, factors in enumerate(FACTORS.tolist()):
        expected = torchvisions_colours(floats(photos[index]), factors)
        torch.testing.assert_close(output[index], expected, atol=1e-4, rtol=0)


def test_colour_is_applied_after_the_affine_map_and_contrast_includes_black_corners() -> None:
    photos, colour = midtones(2), torch.tensor([[1.3, 0.7, 1.4], [0.6, 0.8, 0.5]])
    uncoloured = make_transforms([(4, 8, 48, 48), (16, 2, 40, 60)], degrees=[30.0, -45.0])
    output = augmentation.apply_transforms(
        photos, Transforms(uncoloured.affine, colour), 32, "black"
    )
    plain = augmentation.apply_transforms(photos, uncoloured, 32, "black")
    assert (plain == 0).any()
    for index, factors in enumerate(colour.tolist()):
        expected = torchvisions_colours(plain[index], factors)
        torch.testing.assert_close(output[index], expected, atol=1e-4, rtol=0)


def test_black_corners_stay_black_for_any_brightness_and_saturation() -> None:
    photos, mean, std = noise(2), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    turned = make_transforms(degrees=[45.0, 45.0])
    turned.colour[:] = torch.tensor([1.5, 1.0, 0.5])
    output = augmentation.apply_transforms(photos, turned, SIDE, "black", mean, std)
    black = -torch.tensor(mean) / torch.tensor(std)
    torch.testing.assert_close(output[:, :, 0, 0], black.expand(2, 3))


def test_normalization_is_applied_after_colour() -> None:
    photos, mean, std = noise(4), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    drawn = augmentation.draw_transforms(
        params_of(rotation=20.0, crop_scale_min=0.5), 4, generator()
    )
    drawn = Transforms(drawn.affine, FACTORS)
    plain = augmentation.apply_transforms(photos, drawn, 32, "mirror")
    expected = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    output = augmentation.apply_transforms(photos, drawn, 32, "mirror", mean, std)
    torch.testing.assert_close(output, expected, atol=2e-5, rtol=1e-5)


def test_inputs_are_not_modified() -> None:
    photos, drawn = (
        noise(4),
        Transforms(make_transforms(degrees=[10.0] * 4).affine, FACTORS.clone()),
    )
    before = photos.clone(), drawn.affine.clone(), drawn.colour.clone()
    augmentation.apply_transforms(photos, drawn, 32, "mirror", [0.5] * 3, [0.5] * 3)
    after = photos, drawn.affine, drawn.colour
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@QUICK
@given(photos=st.integers(1, 3), image_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_sampling_grid_matches_torchs_affine_grid(photos: int, image_size: int, seed: int) -> None:
    affine = torch.randn(photos, 2, 3, generator=generator(seed))
    expected = F.affine_grid(affine, [photos, 3, image_size, image_size], align_corners=False)
    grid = augmentation.sampling_grid(*augmentation.grid_axes(affine, image_size))
    torch.testing.assert_close(grid, expected, atol=2e-6, rtol=1e-6)


def test_each_photo_of_a_batch_gets_its_own_transform() -> None:
    changes = {"crop_scale_min": 0.5, "rotation": 30.0, "brightness": 0.3, "contrast": 0.3}
    drawn = augmentation.draw_transforms(params_of(**changes), 50, generator())
    assert len(torch.unique(drawn.affine, dim=0)) == 50
    assert len(torch.unique(drawn.colour, dim=0)) == 50
    output = augmentation.apply_transforms(noise(1).expand(50, -1, -1, -1), drawn, 16, "black")
    assert len(torch.unique(output, dim=0)) == 50


def test_a_result_does_not_depend_on_the_rest_of_the_batch() -> None:
    photos = noise(5)
    changes = {"crop_scale_min": 0.5, "rotation": 30.0, "flip": 0.5, "contrast": 0.3}
    drawn = augmentation.draw_transforms(params_of(**changes), 5, generator())
    together = augmentation.apply_transforms(photos, drawn, 32, "mirror")
    chosen = torch.tensor([3])
    torch.testing.assert_close(
        augmentation.apply_transforms(photos[chosen], drawn[chosen], 32, "mirror"), together[chosen]
    )


@QUICK
@given(
    low=st.floats(0.01, 1), high=st.floats(0.01, 1), aspect=st.floats(1, 4), seed=st.integers(0, 99)
)
def test_crop_boxes_stay_inside_the_photo(
    low: float, high: float, aspect: float, seed: int
) -> None:
    low, high = sorted([low, high])
    changes = params_of(crop_scale_min=low, crop_scale_max=high, crop_aspect=aspect)
    centre, half = augmentation.draw_crop_boxes(changes, 200, generator(seed))
    assert (half > 0).all()
    assert (centre.abs() + half <= 1 + 1e-6).all()
    whole = (half == 1).all(1)
    area, ratio = half.prod(1), half[:, 0] / half[:, 1]
    inside = (area >= low * 0.999) & (area <= high * 1.001) | whole
    assert inside.all()
    assert ((ratio <= aspect * 1.001) & (ratio >= 0.999 / aspect)).all()


def uniform(sample: Tensor, low: float, high: float) -> float:
    """The p-value of the test that a sample is uniform in [low, high]."""
    return float(stats.kstest(sample.numpy(), stats.uniform(low, high - low).cdf).pvalue)


def test_area_log_aspect_and_position_of_crop_boxes_are_uniform() -> None:
    # The widest box is sqrt(0.5 · 4/3) = 0.82 of the side: all fit, so that none is drawn again.
    changes = params_of(crop_scale_min=0.2, crop_scale_max=0.5, crop_aspect=4 / 3)
    centre, half = augmentation.draw_crop_boxes(changes, 5000, generator())
    widest = math.log(4 / 3)
    assert uniform(half.prod(1), 0.2, 0.5) > 0.01
    assert uniform((half[:, 0] / half[:, 1]).log(), -widest, widest) > 0.01
    for axis in (0, 1):
        assert uniform(centre[:, axis] / (1 - half[:, axis]), -1, 1) > 0.01


def test_a_crop_box_that_never_fits_becomes_the_whole_photo() -> None:
    changes = params_of(crop_scale_min=1.0, crop_scale_max=1.0, crop_aspect=2.0)
    centre, half = augmentation.draw_crop_boxes(changes, 100, generator())
    assert (half == 1).all()
    assert (centre == 0).all()


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_have_the_given_probability(probability: float) -> None:
    drawn = augmentation.draw_transforms(params_of(flip=probability), 10_000, generator())
    flipped = (drawn.affine[:, 0, 0] < 0).float().mean().item()
    # Five standard deviations of a fraction of 10,000.
    assert abs(flipped - probability) <= 5 * math.sqrt(probability * (1 - probability) / 10_000)


def test_rotations_are_uniform_in_both_directions() -> None:
    drawn = augmentation.draw_transforms(params_of(rotation=30.0), 5000, generator())
    degrees = torch.rad2deg(torch.atan2(drawn.affine[:, 1, 0], drawn.affine[:, 0, 0]))
    assert uniform(degrees, -30, 30) > 0.01


def test_colour_factors_are_uniform_around_one() -> None:
    changes = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3}
    drawn = augmentation.draw_transforms(params_of(**changes), 5000, generator())
    for column, strength in enumerate(changes.values()):
        assert uniform(drawn.colour[:, column], 1 - strength, 1 + strength) > 0.01


def test_a_generator_in_the_same_state_draws_the_same_transforms() -> None:
    changes = params_of(crop_scale_min=0.3, rotation=10.0, flip=0.5, saturation=0.2)
    first, second = (augmentation.draw_transforms(changes, 20, generator(7)) for _ in range(2))
    assert torch.equal(first.affine, second.affine)
    assert torch.equal(first.colour, second.colour)
