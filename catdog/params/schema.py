"""The sections of params.yaml as frozen, typed and validated settings; `model` is in networks.py.

The schema contains all settings that can affect a result, and no others: device, workers and log
level are command-line options or environment variables. Every key is required, because `dvc exp run
-S` only changes keys that the file contains. No key may be named `size` or `nfiles`: DVC's run
cache ignores params of these names and would restore the results of another value.

This module does not import torchvision. `catdog.model.pretrained.resolve_weights_references` checks
that torchvision has a network of that name, and replaces the values that refer to its weights.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from catdog.params.fields import (
    CROP,
    FLIP,
    GROW,
    MOMENTUM,
    MUON,
    NOTEBOOK,
    Fraction,
    FractionBelowOne,
    ImageSize,
    OpenFraction,
    PerChannel,
    PositiveFraction,
    Precision,
    Section,
    StoredSize,
    sourced,
)
from catdog.params.networks import Model

FIXED_SIZE = ("maxvit", "seed", "vit")  # prefixes of networks that accept only one image size
SIZE_KEYS = ("start_image_size", "image_size", "eval_image_size")


class Prepare(Section):
    """Stored image size, and how the photos are split into training, validation and test set."""

    image_size: StoredSize = Field(description="height and width of the stored photos, in pixels")
    split: Literal["content", "given"] = Field(
        description="content: a hash of its content assigns each photo to a set; given: photos "
        "stay in the set of their train, val or test folder, and val_share or test_share applies "
        "only if there is no folder of that set"
    )
    val_share: OpenFraction = Field(
        description="fraction of the photos in the validation set, used to select the best epoch"
    )
    test_share: OpenFraction = Field(
        description="fraction of the photos in the test set, used only by `catdog evaluate`"
    )

    @model_validator(mode="after")
    def _training_set_is_not_empty(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share ({self.val_share}) + test_share ({self.test_share}) must be below 1; "
                "lower one of them"
            )
        return self


class Normalization(Section):
    """Per-channel mean and standard deviation that normalize pixel values in [0, 1]."""

    mean: PerChannel | None = Field(
        description="mean of the red, green and blue channel; required with source: given, "
        "otherwise empty"
    )
    std: PerChannel | None = Field(
        description="standard deviation of the red, green and blue channel; required with source: "
        "given, otherwise empty"
    )
    source: Literal["data", "imagenet", "half", "weights", "given"] = Field(
        description="data: computed on the training set; imagenet: those of ImageNet; half: mean "
        "0.5 and std 0.5; weights: those of the network's torchvision weights; given: the keys "
        "mean and std",
        json_schema_extra=sourced("half and imagenet: the 2020 notebook"),
    )

    @model_validator(mode="after")
    def _given_requires_mean_and_std(self) -> Self:
        if self.source == "given" and (self.mean is None or self.std is None):
            raise ValueError("source: given requires mean and std; set three numbers each")
        if self.source != "given" and not (self.mean is None and self.std is None):
            raise ValueError(f"mean and std must be empty with source: {self.source}")
        if self.mean is not None and not 0 <= min(self.mean) <= max(self.mean) <= 1:
            raise ValueError(f"mean must be from 0 to 1, not {self.mean}")
        if self.std is not None and not 0.001 <= min(self.std) <= max(self.std) <= 1:
            raise ValueError(f"std must be from 0.001 to 1, not {self.std}")
        return self


class Augmentation(Section):
    """Random transforms of the training photos; validation and test photos are not augmented."""

    crop_scale_min: PositiveFraction = Field(
        description="minimum area of a random crop, relative to the photo (1 = no crop)",
        json_schema_extra=sourced(CROP),
    )
    crop_scale_max: PositiveFraction = Field(
        description="maximum area of a random crop, relative to the photo",
        json_schema_extra=sourced(CROP),
    )
    crop_aspect: Annotated[float, Field(ge=1, le=4)] = Field(
        description="maximum aspect ratio of a random crop; the minimum is its reciprocal "
        "(1 = square)",
        json_schema_extra=sourced(CROP),
    )
    flip: Fraction = Field(
        description="probability of a horizontal flip", json_schema_extra=sourced(FLIP)
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        description="maximum rotation in either direction, in degrees",
        json_schema_extra=sourced(NOTEBOOK),
    )
    fill: Literal["black", "edge", "mirror"] = Field(
        description="padding outside the photo: black; edge: nearest edge pixel; mirror: reflection"
    )
    brightness: FractionBelowOne = Field(
        description="maximum relative change of brightness (0 = off)"
    )
    contrast: FractionBelowOne = Field(description="maximum relative change of contrast (0 = off)")
    saturation: FractionBelowOne = Field(
        description="maximum relative change of saturation (0 = off)"
    )

    @model_validator(mode="after")
    def _crop_range_is_ordered(self) -> Self:
        if self.crop_scale_min > self.crop_scale_max:
            raise ValueError(
                f"crop_scale_min ({self.crop_scale_min}) must not be above "
                f"crop_scale_max ({self.crop_scale_max})"
            )
        return self


class Optimizer(Section):
    """The optimizer and its settings."""

    name: Literal["sgd", "adam", "adamw", "muon"] = Field(
        description="optimizer",
        json_schema_extra=sourced(
            "adam: Kingma & Ba 2014, arXiv:1412.6980; "
            "adamw: Loshchilov & Hutter 2017, arXiv:1711.05101; "
            "muon: https://kellerjordan.github.io/posts/muon/"
        ),
    )
    lr: Annotated[float, Field(gt=0, le=100)] = Field(description="maximum learning rate")
    rest_lr: Annotated[float, Field(gt=0, le=100)] = Field(
        description="maximum learning rate of the parameters that muon trains with SGD: the first "
        "and the last layer, norm layers and biases (muon only)",
        json_schema_extra=sourced(MUON),
    )
    momentum: FractionBelowOne = Field(
        description="momentum of sgd and muon; beta1 of adam and adamw",
        json_schema_extra=sourced(MOMENTUM),
    )
    nesterov: bool = Field(
        description="use Nesterov momentum (sgd only)", json_schema_extra=sourced(MOMENTUM)
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        description="weight decay; with muon, applied only to the parameters that muon updates, "
        "decoupled and scaled by the learning rate",
        json_schema_extra=sourced("decoupled in adamw: arXiv:1711.05101"),
    )
    decay_norm_and_bias: bool = Field(
        description="apply weight decay to norm layers and biases too",
        json_schema_extra=sourced("He et al. 2018, arXiv:1812.01187, section 3.1"),
    )

    @model_validator(mode="after")
    def _nesterov_requires_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov requires momentum above 0")
        return self


class Schedule(Section):
    """Learning rate schedule: a multiplier of optimizer.lr, updated every step."""

    name: Literal["constant", "one_cycle", "cosine", "step"] = Field(
        description="constant; one_cycle: linear warmup, linear decay; cosine: linear warmup, "
        "cosine decay; step: divided by 10 at regular intervals (step_every)",
        json_schema_extra=sourced(
            "one_cycle: Smith & Topin 2017, arXiv:1708.07120; "
            "cosine: Loshchilov & Hutter 2016, arXiv:1608.03983"
        ),
    )
    warmup: FractionBelowOne = Field(
        description="fraction of training with linear warmup",
        json_schema_extra=sourced("Goyal et al. 2017, arXiv:1706.02677"),
    )
    final: Fraction = Field(
        description="learning rate at the end of training, relative to optimizer.lr (one_cycle and "
        "cosine only)"
    )
    step_every: PositiveFraction = Field(
        description="fraction of training between two divisions by 10 (step only)"
    )


class Train(Section):
    """The training loop."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        description="random seed of initialization, shuffling, augmentation and dropout"
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="passes over the training set"
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        description="photos per step, over all devices (global batch size)"
    )
    start_image_size: ImageSize = Field(
        description="image size in the first epoch, in pixels (0 = that of torchvision's weights)",
        json_schema_extra=sourced(GROW),
    )
    image_size: ImageSize = Field(
        description="image size from grow_until on, in pixels (0 = that of torchvision's weights)"
    )
    grow_from: Fraction = Field(
        description="fraction of training after which the image size starts to grow",
        json_schema_extra=sourced(GROW),
    )
    grow_until: Fraction = Field(
        description="fraction of training after which the image size stays at image_size",
        json_schema_extra=sourced(GROW),
    )
    eval_image_size: ImageSize = Field(
        description="image size in validation, evaluate and predict, in pixels "
        "(0 = that of torchvision's weights)",
        json_schema_extra=sourced("larger than in training: Touvron et al. 2019, arXiv:1906.06423"),
    )
    eval_flip: bool = Field(
        description="test-time augmentation: evaluate and predict average the logits of each photo "
        "and its horizontal flip",
        json_schema_extra=sourced(FLIP),
    )
    label_smoothing: FractionBelowOne = Field(
        description="label smoothing in the training loss",
        json_schema_extra=sourced("Szegedy et al. 2015, arXiv:1512.00567"),
    )
    class_weights: Literal["none", "balanced"] = Field(
        description="weights of the photos in the loss: none (all equal), or balanced (inversely "
        "proportional to the number of photos of their class, for classes of very different sizes)",
        json_schema_extra=sourced("scikit-learn's class_weight; King & Zeng 2001"),
    )
    ema: FractionBelowOne = Field(
        description="decay per step of the exponential moving average (EMA) of the weights "
        "(0 = off); the averaged weights are validated and saved",
        json_schema_extra=sourced("Polyak & Juditsky 1992"),
    )
    select: Literal["best", "last"] = Field(
        description="epoch whose weights are saved: best (lowest validation loss among the epochs "
        "at the final image size) or last",
        json_schema_extra=sourced("best: the 2020 notebook"),
    )
    precision: Precision = Field(
        description="data type of matrix products: float32, bfloat16, auto (bfloat16 if the "
        "hardware supports it, otherwise float32), or portable (float32 on the CPU, with the same "
        "bytes on every x86-64 processor with AVX2)",
        json_schema_extra=sourced("bfloat16: Kalamkar et al. 2019, arXiv:1905.12322"),
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        description="number of CPU threads of train, evaluate and predict; the last digits of "
        "results depend on it (0 = OMP_NUM_THREADS, by default one per core; not with precision "
        "portable)"
    )

    @model_validator(mode="after")
    def _portable_fixes_the_threads(self) -> Self:
        if self.precision == "portable" and self.threads == 0:
            raise ValueError(
                "precision portable requires threads to be at least 1, because the result depends "
                "on the number of threads"
            )
        return self

    @model_validator(mode="after")
    def _image_size_grows(self) -> Self:
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
    """Metrics and plots of the trained model."""

    calibration_bins: Annotated[int, Field(ge=2, le=100)] = Field(
        description="number of equal-width bins for the calibration error and its plot",
        json_schema_extra=sourced("Guo et al. 2017, arXiv:1706.04599"),
    )
    worst_mistakes: Annotated[int, Field(ge=1, le=200)] = Field(
        description="number of most confident mistakes to show in the report"
    )


class Params(Section):
    """The content of params.yaml."""

    prepare: Prepare
    normalization: Normalization
    augmentation: Augmentation
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    train: Train
    evaluate: Evaluate

    @model_validator(mode="after")
    def _references_to_weights_can_be_resolved(self) -> Self:
        references = [f"train.{key}: 0" for key in SIZE_KEYS if getattr(self.train, key) == 0]
        if self.normalization.source == "weights":
            references.append("normalization.source: weights")
        if references and not self.model.from_torchvision:
            raise ValueError(
                f"{references[0]} requires a torchvision network, but model.name is "
                f"{self.model.name}"
            )
        return self

    @model_validator(mode="after")
    def _image_sizes_are_consistent(self) -> Self:
        train, stored = self.train, self.prepare.image_size
        sizes = {f"train.{key}": getattr(train, key) for key in SIZE_KEYS}
        if 0 in sizes.values():
            return (
                self  # `pretrained.resolve_weights_references` replaces the 0 and validates again
            )
        largest = max(train.image_size, train.eval_image_size)
        if largest > stored:
            raise ValueError(
                f"train.image_size and train.eval_image_size must not be above "
                f"prepare.image_size ({stored}), not {largest}"
            )
        if self.model.name.startswith(FIXED_SIZE) and len(set(sizes.values())) > 1:
            found = ", ".join(f"{key} ({size})" for key, size in sizes.items())
            raise ValueError(
                f"model.name: {self.model.name} accepts only one image size; set {found} to the "
                "same value"
            )
        return self

    @model_validator(mode="after")
    def _network_accepts_the_input(self) -> Self:
        model, train = self.model, self.train
        if model.name != "seed" and train.batch_size < 2:
            raise ValueError(
                f"train.batch_size is 1, but model.name: {model.name} requires at least 2, because "
                "batch norm computes statistics over a batch"
            )
        if model.name == "seed" and train.image_size >> model.seed.conv_layers == 0:
            raise ValueError(
                f"model.seed.conv_layers: {model.seed.conv_layers} max-pooling layers reduce "
                f"{train.image_size} pixels to 0; use fewer layers or raise train.image_size"
            )
        return self
