"""A palette for a data set: the centres of its pixels' clusters (Chen et al. 2020, section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from imagen_fast.data import Loader
from imagen_fast.errors import InvalidInput, MissingPackage

MOST_IMAGES, MOST_PIXELS = 2048, 1 << 18


def find_palette(loader: Loader, colours: int, seed: int = 0) -> Tensor:
    """k-means of the pixels of the loader's first images: uint8 [colours, C].

    Raises:
        MissingPackage: scikit-learn is not installed.
        InvalidInput: the images have fewer colours.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise MissingPackage(
            "a palette needs the package scikit-learn: pip install imagen-fast[train]"
        ) from error
    pixels: list[np.ndarray] = []
    images = 0
    for step in range(max(1, -(-MOST_IMAGES // loader.batch_size))):
        batch = loader.at(step).images
        pixels.append(batch.movedim(1, -1).reshape(-1, batch.shape[1]).cpu().numpy())
        images += len(batch)
        if images >= MOST_IMAGES:
            break
    every = np.concatenate(pixels)
    chosen = np.random.default_rng(seed).permutation(len(every))[:MOST_PIXELS]
    sample = every[chosen].astype(np.float32)
    if (there := len(np.unique(sample, axis=0))) < colours:
        raise InvalidInput(f"a palette of {colours} colours was asked for, but the images have {there}")
    found = MiniBatchKMeans(colours, random_state=seed, n_init=1, batch_size=4096).fit(sample)
    return torch.from_numpy(found.cluster_centers_.round().clip(0, 255).astype(np.uint8))
