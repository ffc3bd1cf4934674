"""The schedules of the learning rate and of the image size."""

import math

from catdog.params import Schedule


def lr_factor(settings: Schedule, progress: float) -> float:
    """Return the multiplier of optimizer.lr at `progress`, the completed fraction of training.

    It depends only on its arguments, so a checkpoint contains no state of it. one_cycle: Smith &
    Topin 2017, arXiv:1708.07120, with one linear decay; cosine: Loshchilov & Hutter 2016,
    arXiv:1608.03983, after a linear warmup.
    """
    if settings.name == "constant":
        return 1.0
    if settings.name == "step":
        return 0.1 ** int(progress / settings.step_every)
    if progress < settings.warmup:
        return progress / settings.warmup
    down = (progress - settings.warmup) / (1 - settings.warmup)
    remaining = 1 - down if settings.name == "one_cycle" else (1 + math.cos(math.pi * down)) / 2
    return settings.final + (1 - settings.final) * remaining


def image_size_at(
    progress: float, start: int, end: int, grow_from: float, grow_until: float
) -> int:
    """Return the side of the training photos (`start`, `end`, or a multiple of 16), in pixels.

    `progress`, `grow_from` and `grow_until` are fractions of training in [0, 1]. The side grows
    linearly from `start` at `grow_from` to `end` at `grow_until`: progressive resizing, as in
    ffcv's rn50 example (https://github.com/libffcv/ffcv-imagenet).
    """
    if progress >= grow_until:
        return end
    if progress <= grow_from:
        return start
    grown = (progress - grow_from) / (grow_until - grow_from)
    return max(start, min(end, round((start + grown * (end - start)) / 16) * 16))
