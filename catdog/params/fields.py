"""Base class, value types and cited sources that the sections of the schema share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict


class Section(BaseModel):
    """A section of params.yaml: immutable; missing or unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, not {value}")
    return value


def _zero_or_at_least_16(value: int) -> int:
    if 0 < value < 16:
        raise ValueError(
            f"must be 0 (image size of the pretrained weights) or at least 16, not {value}"
        )
    return value


def _weights_source(value: str) -> str:
    if value not in ("none", "default") and not value.endswith((".safetensors", ".pth")):
        raise ValueError(f"must be none, default, or a file (.safetensors or .pth), not {value!r}")
    return value


Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
StoredSize = Annotated[int, Field(ge=16, le=1024)]
ImageSize = Annotated[
    int,
    Field(ge=0, le=1024),
    AfterValidator(_zero_or_at_least_16),
    WithJsonSchema({"type": "integer", "range": "0, or 16 to 1,024"}),
]
# Not a Literal of integers, which would accept true as 1 and 3.0 as 3
KernelSize = Annotated[int, Field(ge=1, le=9), AfterValidator(_odd)]
Precision = Literal["auto", "float32", "bfloat16", "portable"]
WeightsSource = Annotated[str, AfterValidator(_weights_source)]

CROP = "Szegedy et al. 2014, arXiv:1409.4842; torchvision's RandomResizedCrop"
DROPOUT = "Srivastava et al. 2014, JMLR 15, 1929"
FLIP = "Krizhevsky et al. 2012, NIPS"
GROW = "Howard 2018, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html"
MOMENTUM = "Sutskever et al. 2013, ICML"
MUON = "https://kellerjordan.github.io/posts/muon/"
NOTEBOOK = "the 2020 notebook"
RESNET9 = "https://myrtle.ai/learn/how-to-train-your-resnet/"
TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"


def sourced(source: str, values: str = "") -> JsonDict:
    """Return the extra JSON schema of a key for docs/params.md: its source, and its range."""
    return {"source": source, **({"range": values} if values else {})}
