"""Images to feature vectors, by a frozen backbone."""

from __future__ import annotations

import numpy as np
import torch

from imagen_fast.data import Loader
from imagen_fast.models import VisionTransformer
from imagen_fast.objectives.pixels import PixelNormalizer


@torch.inference_mode()
def extract_features(
    vit: VisionTransformer, normalize: PixelNormalizer, loader: Loader, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """One vector an image: the mean over its patches of the last, normalised tokens.

    Each readable image of the loader's source is taken once, in order, in its fixed view.

    Returns:
        Features float32 [n, E], and labels int64 [n] where the source has them.
    """
    vit.to(device).eval()
    normalize.to(device)
    features, labels = [], []
    for batch in loader.once():
        tokens = vit.forward_features(normalize(batch.images.to(device)))
        features.append(tokens[:, 1:].float().mean(1).cpu().numpy())
        if batch.labels is not None:
            labels.append(batch.labels.numpy())
    return np.concatenate(features), np.concatenate(labels) if labels else None
