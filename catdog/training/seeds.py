"""Seeds derived from (seed, epoch, step): a random draw never depends on a running state."""

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """Return a 64-bit seed derived from numbers such as (seed, epoch, step).

    numpy's SeedSequence mixes them, so that neighbouring numbers give independent streams. A seed
    does not depend on earlier draws, so any epoch can be repeated alone.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded with `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*numbers))
