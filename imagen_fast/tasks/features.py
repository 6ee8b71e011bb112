"""Images to feature vectors, by a frozen backbone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from imagen_fast.data import Loader
from imagen_fast.models import Backbone


@torch.inference_mode()
def extract_features(
    backbone: Backbone, normalize: nn.Module, loader: Loader, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """One vector an image: the mean of its tokens, normalised, as the backbone gives it.

    Each readable image of the loader's source is taken once, in order, in its fixed view.

    Returns:
        Features float32 [n, E], and labels int64 [n] where the source has them.
    """
    backbone.to(device).eval()
    normalize.to(device)
    features, labels = [], []
    for batch in loader.once():
        means = backbone.mean_features(normalize(batch.images.to(device)))
        features.append(means.float().cpu().numpy())
        if batch.labels is not None:
            labels.append(batch.labels.numpy())
    return np.concatenate(features), np.concatenate(labels) if labels else None
