"""Parts of a source, chosen by a seed: a hold-out, or a few labels a class."""

from typing import TypeVar

import numpy as np

from imagen_fast.data.errors import NoLabels, TooFewImages
from imagen_fast.data.seeds import SPLIT, generator
from imagen_fast.data.sources import Source
from imagen_fast.errors import InvalidInput

S = TypeVar("S", bound=Source)


def split(source: S, holdout: float, seed: int = 0) -> tuple[S, S]:
    """Divide into (training, hold-out), the share `holdout` of every class, or of all without labels.

    Both parts keep the source's order. A class of two or more images is in both parts; a single image
    trains. Raises `InvalidInput` for a share outside (0, 1), `TooFewImages` where a part would be empty.
    """
    if not 0 < holdout < 1:
        raise InvalidInput(f"the hold-out's share must lie strictly between 0 and 1, not {holdout}")
    labels = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    rng = generator(SPLIT, seed)
    held = np.zeros(len(source), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * holdout), 1), len(members) - 1)
        held[members[:count]] = True
    if not held.any():
        raise TooFewImages(
            f"{source.name!r} has too few images to hold some out ({len(source)}); two of a class are needed"
        )
    return source.subset(np.flatnonzero(~held)), source.subset(np.flatnonzero(held))


def few_per_class(source: S, n: int, seed: int = 0) -> S:
    """`n` images of every class, in the source's order.

    Raises `InvalidInput` for n < 1, `NoLabels` for a source without labels, `TooFewImages` where a class
    has fewer.
    """
    if n < 1:
        raise InvalidInput(f"the number of labels a class must be at least 1, not {n}")
    if source.labels is None or source.classes is None:
        raise NoLabels.of(source.name)
    rng = generator(SPLIT, seed)
    chosen = []
    for label, name in enumerate(source.classes):
        members = np.flatnonzero(source.labels == label)
        if len(members) < n:
            raise TooFewImages(f"class {name!r} of {source.name!r} has {len(members)} images, fewer than {n}")
        chosen.append(rng.permutation(members)[:n])
    return source.subset(np.sort(np.concatenate(chosen)))
