"""The `model` section of params.yaml: which network to train, and the settings of each network."""

from typing import Annotated

from pydantic import Field

from catdog.params.fields import (
    DROPOUT,
    NOTEBOOK,
    RESNET9,
    TORCHVISION,
    FractionBelowOne,
    KernelSize,
    Section,
    WeightsSource,
    sourced,
)

OWN_NETWORKS = ("residual", "seed")


class SeedNetwork(Section):
    """The 2020 notebook's network: blocks of conv, ReLU and 2×2 max-pooling; two linear layers."""

    kernel_size: KernelSize = Field(
        description="kernel size of the conv layers, in pixels",
        json_schema_extra=sourced(NOTEBOOK, "1 to 9, odd"),
    )
    conv_layers: Annotated[int, Field(ge=1, le=8)] = Field(
        description="number of conv layers", json_schema_extra=sourced(NOTEBOOK)
    )
    width: Annotated[int, Field(ge=1, le=512)] = Field(
        description="output channels of the first conv layer; each further layer has twice as many",
        json_schema_extra=sourced(NOTEBOOK),
    )
    hidden_width: Annotated[int, Field(ge=1, le=65536)] = Field(
        description="output features of the first linear layer", json_schema_extra=sourced(NOTEBOOK)
    )
    dropout: FractionBelowOne = Field(
        description="dropout probability before each linear layer",
        json_schema_extra=sourced(DROPOUT),
    )


class ResidualNetwork(Section):
    """A small residual network with a strided stem."""

    width: Annotated[int, Field(ge=8, le=512)] = Field(
        description="channels of the stem; each of the three stages doubles them, to 8 × width",
        json_schema_extra=sourced(RESNET9),
    )
    blocks: Annotated[int, Field(ge=0, le=8)] = Field(
        description="residual blocks in each of the last two stages",
        json_schema_extra=sourced(RESNET9),
    )
    dropout: FractionBelowOne = Field(
        description="dropout probability before the classifier", json_schema_extra=sourced(DROPOUT)
    )


class TorchvisionNetwork(Section):
    """An image classifier of torchvision.models with a new head, from scratch or pretrained."""

    weights: WeightsSource = Field(
        description="none: random initialization; default: torchvision's default weights "
        "(downloaded); or the path of a state dict (rename the file when it changes: DVC tracks "
        "its name, not its content)",
        json_schema_extra=sourced(TORCHVISION, "none, default, FILE.safetensors or FILE.pth"),
    )
    backbone_lr: Annotated[float, Field(gt=0, le=100)] = Field(
        description="learning rate of the backbone, relative to optimizer.lr; the head uses "
        "optimizer.lr"
    )
    freeze_epochs: Annotated[int, Field(ge=0, le=10_000)] = Field(
        description="number of initial epochs that train only the head"
    )


class Model(Section):
    """The network, and the settings of each network; only those of the selected one are used."""

    name: str = Field(
        description="residual, seed, or a classifier in torchvision.models such as resnet18",
        json_schema_extra=sourced(TORCHVISION, "residual, seed, or a name in torchvision.models"),
    )
    residual: ResidualNetwork
    seed: SeedNetwork
    torchvision: TorchvisionNetwork

    @property
    def from_torchvision(self) -> bool:
        """Whether the network is one of torchvision.models."""
        return self.name not in OWN_NETWORKS
