"""The sections of params.yaml as frozen, typed, validated settings.

Everything that can change a result is here and nothing else is: device, workers and log level are
flags or environment variables. Every key must be present, since `dvc exp run -S` can only change a
key that is in the file. No leaf may be named `size` or `nfiles`: DVC's run cache ignores params of
these names and would restore the results of another value.

Nothing here imports torchvision: `catdog.model.pretrained.complete` checks that a network of that
name exists there, and fills in the sizes and the normalization that its weights were trained with.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

OWN_NETWORKS = ("residual", "seed")
ONE_SIZE = ("maxvit", "seed", "vit")  # how the names of networks begin that are built for one size
SIDES = ("start_image_size", "image_size", "eval_image_size")
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=16, le=1024)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, not {value}")
    return value


def _at_least_16(value: int) -> int:
    if 0 < value < 16:
        raise ValueError(
            f"must be 0 (the size of the network's weights) or at least 16, not {value}"
        )
    return value


def _weights_source(weights: str) -> str:
    if weights not in ("none", "default") and not weights.endswith((".safetensors", ".pth")):
        raise ValueError(
            f"must be none, default, or a file that ends in .safetensors or .pth, not {weights!r}"
        )
    return weights


Side = Annotated[
    int,
    Field(ge=0, le=1024),
    AfterValidator(_at_least_16),
    WithJsonSchema({"type": "integer", "range": "0, or 16 to 1,024"}),
]
# Where a setting comes from: docs/params.md names it.
CROP = "Szegedy et al. 2014, arXiv:1409.4842, as torchvision's RandomResizedCrop"
DROPOUT = "Srivastava et al. 2014, JMLR 15, 1929"
FLIP = "Krizhevsky et al. 2012, NIPS"
GROW = "Howard 2018, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html"
MOMENTUM = "Sutskever et al. 2013, ICML"
MUON = "https://kellerjordan.github.io/posts/muon/"
RESNET9 = "https://myrtle.ai/learn/how-to-train-your-resnet/"
SEED = "the notebook that this began with"
TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"


def _from(source: str, values: str = "") -> JsonDict:
    return {"source": source, **({"range": values} if values else {})}


class Section(BaseModel):
    """A section of params.yaml: immutable, and no key may be missing, misspelt or mistyped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Prepare(Section):
    """How photos become arrays, and which of them are kept back."""

    image_size: Pixels = Field(description="side of the stored square photos, in pixels")
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="share of the photos that choose the best epoch"
    )
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="share of the photos that only evaluate looks at"
    )

    @model_validator(mode="after")
    def _leaves_photos_to_train_on(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share ({self.val_share}) + test_share ({self.test_share}) must be below 1"
            )
        return self


class Normalization(Section):
    """What is subtracted from a photo in [0, 1], and what it is then divided by."""

    mean: PerChannel | None = Field(description="red, green, blue; only with source: given")
    std: PerChannel | None = Field(description="red, green, blue; only with source: given")
    source: Literal["data", "imagenet", "half", "weights", "given"] = Field(
        description="data: the training photos' own; imagenet: ImageNet's; half: 0.5 and 0.5; "
        "weights: what torchvision's weights of the network were trained with",
        json_schema_extra=_from("the notebook tried half, then imagenet"),
    )

    @model_validator(mode="after")
    def _numbers_if_given(self) -> Self:
        numbers = self.mean is not None and self.std is not None
        if self.source == "given" and not numbers:
            raise ValueError("source: given needs mean and std, three numbers each")
        if self.source != "given" and not (self.mean is None and self.std is None):
            raise ValueError(f"mean and std must be empty with source: {self.source}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std is {self.std}, but must be above 0")
        return self


class Augmentation(Section):
    """How far a training photo may stray from the original; validation and test photos never do."""

    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = Field(
        description="smallest share of the area that a crop keeps (1 = no crop)",
        json_schema_extra=_from(CROP),
    )
    crop_scale_max: Annotated[float, Field(gt=0, le=1)] = Field(
        description="largest share of the area that a crop keeps", json_schema_extra=_from(CROP)
    )
    crop_aspect: Annotated[float, Field(ge=1, le=4)] = Field(
        description="widest aspect ratio of a crop, its narrowest being one over it (1 = square)",
        json_schema_extra=_from(CROP),
    )
    flip: Share = Field(
        description="probability of a mirrored photo", json_schema_extra=_from(FLIP)
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        description="largest rotation to either side, in degrees", json_schema_extra=_from(SEED)
    )
    fill: Literal["black", "edge", "mirror"] = Field(
        description="what is seen beyond the edges of a rotated photo"
    )
    brightness: Strength = Field(description="brightness is multiplied by 1 ± at most this")
    contrast: Strength = Field(description="contrast is multiplied by 1 ± at most this")
    saturation: Strength = Field(description="saturation is multiplied by 1 ± at most this")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop_scale_min > self.crop_scale_max:
            raise ValueError(
                f"crop_scale_min ({self.crop_scale_min}) must not be above "
                f"crop_scale_max ({self.crop_scale_max})"
            )
        return self


class SeedNetwork(Section):
    """The seed's network: conv, ReLU, 2×2 max-pool, repeated; then two linear layers."""

    # No Literal of numbers: it takes true for 1 and 3.0 for 3.
    kernel_size: Annotated[int, Field(ge=1, le=9), AfterValidator(_odd)] = Field(
        description="side of the filters, an odd number of pixels",
        json_schema_extra=_from(SEED, "1 to 9, odd"),
    )
    conv_layers: Annotated[int, Field(ge=1, le=8)] = Field(
        description="number of conv layers", json_schema_extra=_from(SEED)
    )
    width: Annotated[int, Field(ge=1, le=512)] = Field(
        description="channels of the first conv layer; each further one doubles them",
        json_schema_extra=_from(SEED),
    )
    hidden_width: Annotated[int, Field(ge=1, le=65536)] = Field(
        description="outputs of the first linear layer", json_schema_extra=_from(SEED)
    )
    dropout: Strength = Field(
        description="dropout before either linear layer", json_schema_extra=_from(DROPOUT)
    )


class ResidualNetwork(Section):
    """A small residual network with a strided stem: much more accuracy for much less work."""

    width: Annotated[int, Field(ge=8, le=512)] = Field(
        description="channels of the first stage; each further one doubles them, up to 8 ×",
        json_schema_extra=_from(RESNET9),
    )
    blocks: Annotated[int, Field(ge=0, le=8)] = Field(
        description="residual blocks in each of the last two stages",
        json_schema_extra=_from(RESNET9),
    )
    dropout: Strength = Field(
        description="dropout before the classifier", json_schema_extra=_from(DROPOUT)
    )


class TorchvisionNetwork(Section):
    """Any image classifier of torchvision.models, from scratch or from weights; the head is new."""

    weights: Annotated[str, AfterValidator(_weights_source)] = Field(
        description="none; default: torchvision's download; or the file of a state dict, "
        ".safetensors or .pth (give changed weights another name: DVC sees the name, not the file)",
        json_schema_extra=_from(TORCHVISION, "none, default, FILE.safetensors or FILE.pth"),
    )
    backbone_lr: Annotated[float, Field(gt=0, le=100)] = Field(
        description="factor on optimizer.lr for all weights but the head's"
    )
    freeze_epochs: Annotated[int, Field(ge=0, le=10_000)] = Field(
        description="epochs at first in which only the head learns"
    )


class Model(Section):
    """Which network is trained; the settings of the other ones are kept but not used."""

    name: str = Field(
        description="residual, seed, or a classifier in torchvision.models such as resnet18",
        json_schema_extra=_from(TORCHVISION, "residual, seed, or a name in torchvision.models"),
    )
    residual: ResidualNetwork
    seed: SeedNetwork
    torchvision: TorchvisionNetwork

    @property
    def from_torchvision(self) -> bool:
        """Whether the network is one of torchvision's."""
        return self.name not in OWN_NETWORKS


class Optimizer(Section):
    """How a gradient becomes a step."""

    name: Literal["sgd", "adam", "adamw", "muon"] = Field(
        description="the optimizer",
        json_schema_extra=_from(
            "adam: Kingma & Ba 2014, arXiv:1412.6980; "
            "adamw: Loshchilov & Hutter 2017, arXiv:1711.05101; "
            "muon: https://kellerjordan.github.io/posts/muon/"
        ),
    )
    lr: Annotated[float, Field(gt=0, le=100)] = Field(description="the highest learning rate")
    rest_lr: Annotated[float, Field(gt=0, le=100)] = Field(
        description="the highest learning rate of what muon leaves to sgd: the first and the last "
        "layer, norms and biases (muon only)",
        json_schema_extra=_from(MUON),
    )
    momentum: Strength = Field(
        description="momentum of sgd and muon, beta1 of adam and adamw",
        json_schema_extra=_from(MOMENTUM),
    )
    nesterov: bool = Field(
        description="Nesterov's momentum (sgd only)", json_schema_extra=_from(MOMENTUM)
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        description="weight decay; with muon of the weights that it takes, and times its rate",
        json_schema_extra=_from("decoupled in adamw: arXiv:1711.05101"),
    )
    decay_norm_and_bias: bool = Field(
        description="whether weight decay also acts on norm layers and biases",
        json_schema_extra=_from("He et al. 2018, arXiv:1812.01187, section 3.1"),
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self


class Schedule(Section):
    """The learning rate over the training, as a factor on optimizer.lr."""

    name: Literal["constant", "one_cycle", "cosine", "step"] = Field(
        description="constant; one_cycle: straight up, then straight down; cosine: straight up, "
        "then half a cosine down; step: divided by ten at the shares in step_every",
        json_schema_extra=_from(
            "one_cycle: Smith & Topin 2017, arXiv:1708.07120; "
            "cosine: Loshchilov & Hutter 2016, arXiv:1608.03983"
        ),
    )
    warmup: Strength = Field(
        description="share of the training in which the rate rises",
        json_schema_extra=_from("Goyal et al. 2017, arXiv:1706.02677"),
    )
    final: Share = Field(description="factor at the end (one_cycle and cosine)")
    step_every: Annotated[float, Field(gt=0, le=1)] = Field(
        description="share of the training after which the rate is divided by ten, each time (step)"
    )


class Train(Section):
    """The training itself."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        description="seed of weights, order and augmentation"
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="passes over the training photos"
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(description="photos a step")
    start_image_size: Side = Field(
        description="side of the photos in the first epoch, in pixels "
        "(0 = as torchvision's weights)",
        json_schema_extra=_from(GROW),
    )
    image_size: Side = Field(
        description="side of the photos in the last epoch, in pixels (0 = as torchvision's weights)"
    )
    grow_from: Share = Field(
        description="share of the training after which photos begin to grow",
        json_schema_extra=_from(GROW),
    )
    grow_until: Share = Field(
        description="share of the training after which they are full-grown",
        json_schema_extra=_from(GROW),
    )
    eval_image_size: Side = Field(
        description="side at which photos are judged: validation, test and predict, in pixels "
        "(0 = as torchvision's weights)",
        json_schema_extra=_from("larger than in training: Touvron et al. 2019, arXiv:1906.06423"),
    )
    eval_flip: bool = Field(
        description="whether test and predict average over a photo and its mirror image; "
        "validation, which only chooses the epoch, does not",
        json_schema_extra=_from(FLIP),
    )
    label_smoothing: Strength = Field(
        description="label smoothing of the training loss",
        json_schema_extra=_from("Szegedy et al. 2015, arXiv:1512.00567"),
    )
    ema: Strength = Field(
        description="decay per step of the averaged weights that are judged and kept (0 = none)",
        json_schema_extra=_from("Polyak & Juditsky 1992"),
    )
    select: Literal["best", "last"] = Field(
        description="which epoch is kept: of those with photos of the last size the one of lowest "
        "validation loss, or the last",
        json_schema_extra=_from("the notebook chose the best"),
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        description="arithmetic; auto: bfloat16 where the hardware has it, else float32",
        json_schema_extra=_from("bfloat16: Kalamkar et al. 2019, arXiv:1905.12322"),
    )

    @model_validator(mode="after")
    def _grows_forwards(self) -> Self:
        if self.start_image_size > self.image_size > 0:
            raise ValueError(
                f"start_image_size ({self.start_image_size}) must not be above "
                f"image_size ({self.image_size})"
            )
        if self.grow_from > self.grow_until:
            raise ValueError(
                f"grow_from ({self.grow_from}) must not be above grow_until ({self.grow_until})"
            )
        return self


class Evaluate(Section):
    """How the trained model is described."""

    calibration_bins: Annotated[int, Field(ge=2, le=100)] = Field(
        description="bins of equal width for the calibration error and its plot",
        json_schema_extra=_from("Guo et al. 2017, arXiv:1706.04599"),
    )
    worst_mistakes: Annotated[int, Field(ge=1, le=200)] = Field(
        description="how many of the most confident mistakes are shown"
    )


class Params(Section):
    """All of params.yaml."""

    prepare: Prepare
    normalization: Normalization
    augmentation: Augmentation
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    train: Train
    evaluate: Evaluate

    @model_validator(mode="after")
    def _weights_to_ask(self) -> Self:
        asking = [f"train.{key}: 0" for key in SIDES if getattr(self.train, key) == 0]
        if self.normalization.source == "weights":
            asking.append("normalization.source: weights")
        if asking and not self.model.from_torchvision:
            raise ValueError(
                f"{asking[0]} asks torchvision's weights, but model.name: {self.model.name} "
                "has none"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        train, stored = self.train, self.prepare.image_size
        sides = {f"train.{key}": getattr(train, key) for key in SIDES}
        if 0 in sides.values():
            return self  # filled in by `pretrained.complete`, and then checked here again
        largest = max(train.image_size, train.eval_image_size)
        if largest > stored:
            raise ValueError(
                f"train.image_size and train.eval_image_size must not be above "
                f"prepare.image_size ({stored}), not {largest}"
            )
        if self.model.name.startswith(ONE_SIZE) and len(set(sides.values())) > 1:
            said = ", ".join(f"{key} ({side})" for key, side in sides.items())
            raise ValueError(
                f"model.name: {self.model.name} needs {said} to be equal: it takes one size only"
            )
        return self

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        model, train = self.model, self.train
        if model.name != "seed" and train.batch_size < 2:
            raise ValueError(
                f"train.batch_size is 1, but model.name: {model.name} needs at least 2: batch norm "
                "compares the photos of a batch"
            )
        if model.name == "seed" and train.image_size >> model.seed.conv_layers == 0:
            raise ValueError(
                f"model.seed.conv_layers: {model.seed.conv_layers} poolings leave nothing "
                f"of {train.image_size} pixels"
            )
        return self
