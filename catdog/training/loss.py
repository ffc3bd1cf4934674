"""The loss of training and validation: cross-entropy, optionally with weights of the classes."""

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Return a weight per class, float32 (classes,): N / (classes × photos of the class).

    They are those of scikit-learn's class_weight="balanced" (King & Zeng 2001). Every class has the
    same total weight, and the mean over the N photos of `labels` is 1, so that the scale of the
    loss, and with it a suitable learning rate, does not depend on the weights.
    """
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.float())


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float = 0.0
) -> Tensor:
    """Return the sum of the losses of a batch of logits (N, classes), with label smoothing.

    `weights` (classes,) are the weights of the photos by class; None if all are 1.
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    # F.cross_entropy(weight=…) weights each class of the smoothed target instead of the photo: with
    # 1 : 20 photos and smoothing 0.1, the optimum for a photo of the large class would be 51 % for
    # the small class (pytorch/pytorch#104776).
    losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (losses * weights[labels]).sum()
