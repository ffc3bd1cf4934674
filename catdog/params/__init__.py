"""params.yaml: every setting that can change a result.

schema.py    all sections but `model`, and the checks across sections
networks.py  the `model` section
fields.py    base class, value types and cited sources of the sections
loading.py   read and validate a params file, with one-line errors
docs.py      describe every key: `catdog params` and docs/params.md
"""

from catdog.params.fields import PerChannel, Precision, Section
from catdog.params.loading import load, parse, read_yaml
from catdog.params.networks import Model, ResidualNetwork, SeedNetwork, TorchvisionNetwork
from catdog.params.schema import (
    Augmentation,
    Evaluate,
    Normalization,
    Optimizer,
    Params,
    Prepare,
    Schedule,
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
    "Precision",
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
