from __future__ import annotations

import numpy as np
import pytest
import torch

from imagen_fast.data import Augmentation, Loader, digits
from imagen_fast.models import VisionTransformer, vit_config
from imagen_fast.objectives.pixels import PixelNormalizer
from imagen_fast.tasks.features import extract_features
from imagen_fast.tasks.probe import knn_accuracy, linear_accuracy


@pytest.fixture
def clusters():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16))
    y = np.arange(200) % 4
    return (centres[y] + 0.1 * rng.normal(size=(200, 16))).astype(np.float32), y


def test_separate_clusters_are_found(clusters):
    x, y = clusters
    assert knn_accuracy(x[:100], y[:100], x[100:], y[100:]) == 1
    assert linear_accuracy(x[:100], y[:100], x[100:], y[100:]) == 1


def test_knn_weighs_by_similarity():
    # One neighbour close by outweighs two of another class at a right angle.
    x = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    asked = np.array([[1, 0.1]], dtype=np.float32)
    assert knn_accuracy(x, np.array([5, 2, 2]), asked, np.array([5])) == 1


def test_features_are_the_mean_of_the_patch_tokens():
    source = digits().subset(range(10))
    vit = VisionTransformer(vit_config("nano", image_size=(8, 8), patch_size=2, channels=1))
    normalize = PixelNormalizer(source.mean, source.std)
    with Loader(source, 4, 8, Augmentation()) as loader:
        features, labels = extract_features(vit, normalize, loader, torch.device("cpu"))
    assert features.shape == (10, 96)
    assert labels.tolist() == source.labels.tolist()
    tokens = vit.eval().forward_features(normalize(torch.from_numpy(source.images)))
    np.testing.assert_allclose(features, tokens[:, 1:].mean(1).detach().numpy(), rtol=1e-5, atol=1e-5)
