"""How good features are, without training the backbone: k nearest neighbours and a linear probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from imagen_fast.data import Loader, Source, TooFewImages, split
from imagen_fast.errors import MissingPackage
from imagen_fast.models import Backbone
from imagen_fast.tasks.features import extract_features

# More would take scikit-learn longer than the answer is worth; drawn alike from every class.
MOST_IMAGES = 10_000
HOLDOUT = 0.2
# The hold-out of a data set is the same in every run, whatever its seed, so that figures can be compared.
SPLIT_SEED = 0
SMALL_PRODUCT = 10**8  # multiplications


def evaluate_backbone(
    backbone: Backbone,
    normalize: nn.Module,
    source: Source,
    size: int,
    device: torch.device,
    *,
    batch_size: int = 64,
    threads: int | None = None,
    holdout: float = HOLDOUT,
) -> dict[str, Any]:
    """k-NN and linear-probe accuracy on a held-out share of a labelled source, stratified by class.

    Without `--holdout` pretraining has seen the held-out images, though never their labels.

    Returns:
        `knn` and `linear` (accuracies 0..1), and how many images and classes they rest on.

    Raises:
        MissingPackage: scikit-learn is not installed.
        TooFewImages: no class has two readable images, or only one class has any.
    """
    assert source.labels is not None
    if len(source) > MOST_IMAGES:
        _, source = split(source, MOST_IMAGES / len(source), seed=SPLIT_SEED)
    parts = []
    for part in split(source, holdout, seed=SPLIT_SEED):
        with Loader(part, batch_size, size, threads=threads, channels=backbone.config.channels) as loader:
            features, labels = extract_features(backbone, normalize, loader, device)
            assert labels is not None
            parts.append((features, labels))
    (x, y), (x_held, y_held) = parts
    classes = len(np.unique(y))
    if classes < 2:
        raise TooFewImages(f"{source.name!r} has readable images of one class only; a probe needs two")
    return {
        "knn": knn_accuracy(x, y, x_held, y_held),
        "linear": linear_accuracy(x, y, x_held, y_held),
        "train_images": len(y),
        "heldout_images": len(y_held),
        "classes": classes,
    }


def knn_accuracy(
    x: np.ndarray,
    y: np.ndarray,
    x_held: np.ndarray,
    y_held: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of k-NN weighted by exp(cosine / temperature) (Wu et al. 2018; k and temperature as DINO).

    Args:
        x, x_held: features [n, E]; y, y_held: labels [n].
    """
    bank = torch.nn.functional.normalize(torch.from_numpy(x), dim=1)
    asked = torch.nn.functional.normalize(torch.from_numpy(x_held), dim=1)
    labels = torch.from_numpy(y)
    correct = 0
    for queries, wanted in zip(asked.split(1024), torch.from_numpy(y_held).split(1024), strict=True):
        similarity, nearest = (queries @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = torch.zeros(len(queries), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[nearest], (similarity / temperature).exp())
        correct += int((votes.argmax(1) == wanted).sum())
    return correct / len(y_held)


def linear_accuracy(x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray) -> float:
    """Accuracy of multinomial logistic regression on standardised features [n, E]."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingPackage(
            "the linear probe needs the package scikit-learn: pip install imagen-fast[train]"
        ) from error
    # A hundred iterations, the default, can leave wide features unfinished.
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    # The threads of a small matrix product cost more than they save, very much so on busy cores.
    threads = torch.get_num_threads() if x.size * len(np.unique(y)) > SMALL_PRODUCT else 1
    with threadpool_limits(threads):
        return float(probe.fit(x, y).score(x_held, y_held))
