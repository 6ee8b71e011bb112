"""Random generators as pure functions of a key: the ground on which exact resumption stands."""

from typing import Final

import numpy as np

# What the numbers are drawn for. Each purpose has a stream of its own, so that one more draw in one place
# changes nothing in another.
ORDER: Final = 0
CROP: Final = 1
BATCH: Final = 2
SPLIT: Final = 3
MASK: Final = 4
PREDICT: Final = 5


def generator(purpose: int, *key: int) -> np.random.Generator:
    """A fresh generator that depends on its key alone; every part of the key is an int >= 0."""
    return np.random.default_rng((purpose, *key))


def torch_seed(purpose: int, *key: int) -> int:
    """A 63-bit seed for a `torch.Generator`, mixed from the key so that neighbouring steps are unrelated."""
    return int(np.random.SeedSequence((purpose, *key)).generate_state(1, np.uint64)[0] >> 1)
