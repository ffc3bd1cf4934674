"""params.yaml: every setting that can change a result.

schema.py   the sections and keys: types, ranges, defaults, where each comes from
loading.py  read and validate a params file; one line for each mistake
docs.py     docs/params.md, made from the schema
"""

from catdog.params.loading import load, parse, read_yaml
from catdog.params.schema import (
    Augmentation,
    Evaluate,
    Model,
    Normalization,
    Optimizer,
    Params,
    PerChannel,
    Prepare,
    ResidualNetwork,
    Schedule,
    Section,
    SeedNetwork,
    TorchvisionNetwork,
    Train,
)

__all__ = [
    "Augmentation",
    "Evaluate",
    "Model",
    "Normalization",
    "Optimizer",
    "Params",
    "PerChannel",
    "Prepare",
    "ResidualNetwork",
    "Schedule",
    "Section",
    "SeedNetwork",
    "TorchvisionNetwork",
    "Train",
    "load",
    "parse",
    "read_yaml",
]
