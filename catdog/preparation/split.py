"""The rule that assigns each photo to the training, validation or test split."""


def split_of(sha256: str, val_share: float, test_share: float) -> str:
    """Return the split of a photo, a function of its content hash (hexadecimal) only.

    The first 64 bits of the hash, as a number in [0, 1), are compared with the fractions. Adding or
    removing photos therefore never changes the split of another photo, and a larger `test_share`
    only adds photos to the test set.
    """
    position = int(sha256[:16], 16) / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"
