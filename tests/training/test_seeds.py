"""Seeds of neighbouring epochs and steps give independent random numbers."""

import numpy as np
import torch

from catdog.training import seeds


def test_seeds_of_neighbouring_numbers_are_independent() -> None:
    found = {seeds.derive_seed(seed, epoch) for seed in range(40) for epoch in range(40)}
    assert len(found) == 1600
    draws = torch.cat([torch.rand(1, generator=seeds.make_generator(1, n)) for n in range(500)])
    assert abs(float(np.corrcoef(draws[:-1], draws[1:])[0, 1])) < 0.15
    assert abs(draws.mean().item() - 0.5) < 0.06
