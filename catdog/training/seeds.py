"""Seeds are derived from numbers, not from generator state, so that any draw can be repeated.

Order and augmentation of an epoch depend on (seed, epoch), the initial weights on the seed, and the
dropout of a step on (seed, epoch, step, rank): each process uses a different dropout mask.
"""

import numpy as np
import torch

INITIAL, STEP = 1, 2  # random streams in addition to the order and augmentation of an epoch


def derive_seed(*numbers: int) -> int:
    """Return a 64-bit seed derived from numbers such as (seed, epoch, step).

    numpy's SeedSequence mixes them, so that neighbouring numbers give independent streams. A seed
    does not depend on earlier draws, so any epoch can be repeated alone.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded with `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*numbers))
