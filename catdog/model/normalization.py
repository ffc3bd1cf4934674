"""The mean and std that inputs are normalized with, as `normalization` in params.yaml selects."""

from pathlib import Path

from catdog.dataset.prepared import ChannelStats, read_stats
from catdog.params import Params

IMAGENET = ChannelStats([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ChannelStats([0.5] * 3, [0.5] * 3)


def pick_normalization(params: Params, prepared: Path) -> ChannelStats:
    """Return the mean and std selected by `normalization` in params.yaml.

    `prepared` is the folder with the statistics of the training set (normalization.source: data).
    A standard deviation of 0 is replaced by 1. Raises CatdogError if they are needed and missing.
    """
    settings = params.normalization
    if settings.mean is not None and settings.std is not None:
        return ChannelStats(settings.mean, settings.std)
    if settings.source == "data":
        stats = read_stats(prepared)
        # For a channel with the same value everywhere; scikit-learn's StandardScaler does the same.
        return ChannelStats(stats.mean, [std or 1.0 for std in stats.std])
    return IMAGENET if settings.source == "imagenet" else HALF
