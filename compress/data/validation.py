"""The part of a data set that settings are chosen on, where it is a share of the training samples."""

from compress.errors import DataError
from compress.wording import count_of


def has_validation(data: object) -> bool:
    """Whether a data set has separate samples to choose settings on."""
    return getattr(data, "validation", None) is not None


def held_out_count(share: float, samples: int, name: str) -> int:
    """How many of `samples` training samples are the last `share` (in (0, 1)) of them: at least one.

    Raises:
        DataError: nothing would be left to train on; `name` is the data set's.
    """
    count = max(1, round(share * samples))
    if count >= samples:
        raise DataError(
            f"{name} has {count_of(samples, 'training sample')}, and {count} of them are to be held out; take "
            "more training samples, or a smaller share."
        )
    return count
