import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, transforms
from torchvision.transforms import functional as tv

from imagen_fast.data import Augmentation, CenterCrop, RandomResizedCrop, augmentation_for, open_source
from imagen_fast.data.augment import random_shifts, to_channels
from imagen_fast.data.decode import DecodedPicture


@pytest.mark.parametrize("size", [(500, 375), (64, 64), (90, 400), (7, 3)])
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0)])
def test_crops_are_distributed_as_torchvisions(size, scale):
    draws = 3000
    crop, rng = RandomResizedCrop(scale=scale), np.random.default_rng(0)
    boxes = [crop.box(rng, *size) for _ in range(draws)]
    ours = np.array([(top, left, bottom - top, right - left) for left, top, right, bottom in boxes])
    torch.manual_seed(0)
    image = Image.new("L", size)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(image, scale, crop.ratio) for _ in range(draws)]
    )
    # Kolmogorov-Smirnov at 1 in 10,000 for each of top, left, height, width.
    for a, b in zip(ours.T, theirs.T, strict=True):
        values = np.union1d(a, b)
        distance = np.abs(
            np.searchsorted(np.sort(a), values, "right") - np.searchsorted(np.sort(b), values, "right")
        ).max()
        assert distance / draws < 2.23 * np.sqrt(2 / draws)


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000)])
def test_the_fallback_is_torchvisions(size):
    left, top, right, bottom = RandomResizedCrop(scale=(1.0, 1.0)).box(np.random.default_rng(0), *size)
    theirs = transforms.RandomResizedCrop.get_params(Image.new("L", size), (1.0, 1.0), (3 / 4, 4 / 3))
    assert (top, left, bottom - top, right - left) == theirs


def test_a_box_depends_on_its_generator_alone():
    crop = RandomResizedCrop()
    assert crop.box(np.random.default_rng(5), 99, 77) == crop.box(np.random.default_rng(5), 99, 77)


def test_random_views_equal_torchvisions_pixels(photograph):
    crop, picture = RandomResizedCrop(), DecodedPicture(photograph)
    for seed in range(10):
        left, top, right, bottom = crop.box(np.random.default_rng(seed), *photograph.size)
        ours = np.asarray(crop.view(picture, 64, np.random.default_rng(seed)))
        theirs = tv.resized_crop(
            photograph, top, left, bottom - top, right - left, [64, 64], InterpolationMode.BICUBIC
        )
        assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1


@pytest.mark.parametrize("shape", [(240, 180), (180, 240), (101, 233), (64, 64), (33, 20)])
@pytest.mark.parametrize("size", [32, 64])
def test_central_views_equal_torchvisions_pixels(photograph, shape, size):
    image = photograph.resize(shape)
    ours = np.asarray(CenterCrop().view(DecodedPicture(image), size))
    theirs = tv.center_crop(tv.resize(image, int(size / 0.875), InterpolationMode.BICUBIC), [size, size])
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1


def test_presets(folder):
    assert augmentation_for(open_source("digits")) == Augmentation(shift=1)
    expected = Augmentation(crop=RandomResizedCrop(scale=(0.2, 1.0)), flip=True)
    assert augmentation_for(open_source("photos")) == expected
    assert augmentation_for(open_source(folder)) == expected


def test_shifts_move_zeros_in():
    images = np.random.default_rng(0).integers(1, 256, size=(500, 2, 5, 7), dtype=np.uint8)
    moved = random_shifts(images, 2, np.random.default_rng(1))
    assert moved.dtype == np.uint8
    assert moved.flags.c_contiguous
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for before, after in zip(padded, moved, strict=True):
        found = [
            (y, x) for y in range(5) for x in range(5) if (before[:, y : y + 5, x : x + 7] == after).all()
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25


def test_gray_from_colour_is_pillows(photograph):
    planes = np.asarray(photograph).transpose(2, 0, 1)[None]
    assert (to_channels(planes, 1)[0, 0] == np.asarray(photograph.convert("L"))).all()
    assert (to_channels(planes[:, :1], 3) == planes[:, :1]).all()
    assert to_channels(planes, 3) is planes
