"""Batches of views against Pillow's crop and resize: the same pixels within a level, whatever the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from pillow_views import FILTERS, by_pillow, nearly_the_same

from imagen_fast.data import CenterCrop, CorruptImage, RandomResizedCrop, Views, decode_batch, decode_image
from imagen_fast.data.decode import DecodedPicture
from imagen_fast.data.views import random_boxes
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops.patches import patchify

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, edges, and noise on top."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / a + y / b + c) for a, b, c in ((9, 13, 0), (17, 7, 1), (5, 29, 2))]
    noisy = (
        np.stack(waves, -1) + rng.normal(0, 15, (height, width, 3)) + 60 * ((x // 11 + y // 7) % 2)[..., None]
    )
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 92} | options if kind in ("JPEG", "WEBP") else options))
    return buffer.getvalue()


SIDE = st.integers(1, 90)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    width=SIDE,
    height=SIDE,
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    filter=st.sampled_from(list(FILTERS)),
    mirrored=st.booleans(),
    kind=st.sampled_from(["JPEG", "PNG"]),
    subsampling=st.sampled_from([0, 1, 2]),
)
def test_any_box_at_any_size_is_pillows(
    width, height, out, corner, extent, filter, mirrored, kind, subsampling
):
    data = encoded(
        photograph(width, height), kind, **({"subsampling": subsampling} if kind == "JPEG" else {})
    )
    left, top = int(corner[0] * (width - 1)), int(corner[1] * (height - 1))
    right, bottom = (
        left + 1 + int(extent[0] * (width - 1 - left)),
        top + 1 + int(extent[1] * (height - 1 - top)),
    )
    box = np.array([[left, top, right, bottom]])
    made = decode_batch([data], box, out, dtype=torch.uint8, filter=filter, flip=np.array([mirrored]))
    assert not made.failed
    nearly_the_same(made.pixels[0], by_pillow(data, box[0], out, filter, mirrored))


@pytest.mark.parametrize("filter", FILTERS)
def test_every_instruction_set_makes_the_same(instruction_set, filter, use_instruction_set):
    data = [encoded(photograph(97, 61)), encoded(photograph(40, 55), "PNG")]
    boxes = np.array([[3, 5, 90, 60], [0, 0, 40, 55]])
    made = decode_batch(data, boxes, (37, 45), dtype=torch.uint8, filter=filter).pixels
    use_instruction_set("portable")
    assert torch.equal(decode_batch(data, boxes, (37, 45), dtype=torch.uint8, filter=filter).pixels, made)
    for image, box, pixels in zip(data, boxes, made, strict=True):
        nearly_the_same(pixels, by_pillow(image, box, (37, 45), filter))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("patch", [None, 4, 7])
def test_normalised_and_cut_into_patches(instruction_set, dtype, patch, channels):
    data, boxes = [encoded(photograph(70, 50, seed)) for seed in range(3)], np.array([[0, 0, 70, 50]] * 3)
    size, given_ = (28, 56), {"channels": channels}
    levels = decode_batch(data, boxes, size, dtype=torch.uint8, **given_).pixels
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    if channels == 1:
        mean, std = mean.mean(0), std.mean(0)
    exact = (levels.double() / 255 - mean) / std
    exact = exact if patch is None else patchify(exact, patch)
    made = decode_batch(data, boxes, size, patch, dtype=dtype, **given_).pixels
    assert made.dtype == dtype
    assert made.shape == exact.shape
    # A rounding each of the scale, the shift and their sum, whose largest value is below 4; then the type's.
    bound = 4 * torch.finfo(torch.float32).eps * 2 + torch.finfo(dtype).eps / 2 * exact.abs()
    assert bool(((made.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_kind_of_file_in_colour_and_gray(kind, mode):
    if mode == "CMYK" and kind != "JPEG":
        pytest.skip("no such files")
    data = encoded(photograph(50, 40).convert(mode), kind)
    box = np.array([[4, 3, 45, 39]])
    for channels, wanted in ((3, "RGB"), (1, "L")):
        made = decode_batch([data], box, 24, dtype=torch.uint8, channels=channels)
        assert not made.failed
        nearly_the_same(made.pixels[0], by_pillow(data, box[0], (24, 24), mode=wanted))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(10))
def test_an_orientation_is_applied(orientation, progressive):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(83, 47), exif=exif, progressive=progressive)
    width, height = (47, 83) if orientation in (5, 6, 7, 8) else (83, 47)
    for box in ([0, 0, width, height], [5, 11, 30, 40], [width - 30, height - 25, width, height]):
        made = decode_batch([data], np.array([box]), (31, 22), dtype=torch.uint8)
        assert not made.failed
        nearly_the_same(made.pixels[0], by_pillow(data, box, (31, 22)))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_is_turned_is_decoded_at_a_smaller_scale_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(80, 60).resize((404, 320)), exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    box = np.array([[7, 20, turned.width - 31, turned.height - 5]])
    given = {"crops": box, "size": (40, 33), "dtype": torch.uint8, "flip": np.array([True])}
    made = decode_batch([data], dct_scaling=1.5, **given)
    upright = decode_batch([encoded(turned, quality=100, subsampling=0)], dct_scaling=1.5, **given)
    assert not made.failed
    assert float((made.pixels.int() - upright.pixels.int()).abs().float().mean()) < 0.6
    # At their full size they would be other pixels.
    assert not torch.equal(made.pixels, decode_batch([data], **given).pixels)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=st.integers(0, 120), value=st.integers(0, 255))
def test_broken_exif_means_what_it_means_to_pillow(place, value):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8298] = 6, "maker", "rights"
    data = bytearray(encoded(photograph(40, 20), exif=exif))
    at = data.index(b"Exif\0\0")
    data[at + place % 120] = value
    made = decode_batch([bytes(data)], CenterCrop(1.0), 16, dtype=torch.uint8)
    try:
        pixels = decode_image(bytes(data))
    except Exception:
        assert made.failed
        return
    assert not made.failed
    assert made.views.boxes[0].tolist() == [0, 0, pixels.shape[1], pixels.shape[0]]


def test_pictures_of_the_usual_size_are_pillows_but_for_few_pixels():
    images = [encoded(photograph(500, 375, i)) for i in range(4)]
    made = decode_batch(images, RandomResizedCrop((0.08, 1.0)), 224, dtype=torch.uint8, seed=0)
    for image, box, pixels in zip(images, made.views.boxes, made.pixels, strict=True):
        nearly_the_same(pixels, by_pillow(image, box, (224, 224)))


def test_one_bad_image_never_loses_the_batch():
    good = encoded(photograph(60, 60))
    bad = {
        1: b"",
        2: b"no image at all",
        4: good[: len(good) // 2],
        5: encoded(photograph(30, 30), "PNG")[:80],
        7: good[:300],
    }
    images = [bad.get(i, good) for i in range(9)]
    made = decode_batch(images, CenterCrop(), 32)
    assert sorted(made.failed) == sorted(bad)
    assert all(made.failed.values())
    alone = decode_batch([good], CenterCrop(), 32).pixels[0]
    for i in range(9):
        assert torch.equal(made.pixels[i], torch.zeros_like(alone) if i in bad else alone)


def without_segment(data: bytes, marker: int) -> bytes:
    """The file with every segment of this kind cut out."""
    kept, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            kept += data[at:end]
        at = end
    return bytes(kept + data[at:])


@pytest.mark.parametrize("marker", [0xDB, 0xC4], ids=["quantisation", "Huffman"])
def test_the_tables_of_one_file_are_not_those_of_the_next(marker):
    good = encoded(photograph(64, 48))
    poor = without_segment(good, marker)
    alone = decode_batch([poor], CenterCrop(), 32, dtype=torch.uint8, threads=1)
    beside = decode_batch([good, poor, good], CenterCrop(), 32, dtype=torch.uint8, threads=1)
    assert (1 in beside.failed) == (0 in alone.failed)
    assert torch.equal(beside.pixels[1], alone.pixels[0])
    assert torch.equal(beside.pixels[0], beside.pixels[2])
    try:
        decode_image(poor)
        assert not alone.failed
    except CorruptImage:
        assert alone.failed


def test_whatever_goes_wrong_with_one_image_stays_with_it(monkeypatch):
    """Also what nobody foresaw, in Pillow or in the second pass."""
    good, other = encoded(photograph(40, 40)), encoded(photograph(30, 30), "PNG")

    def no_memory(data):
        raise MemoryError

    monkeypatch.setattr("imagen_fast.data.decode.batch.pillow_pixels", no_memory)
    made = decode_batch([good, other], CenterCrop(), 24)
    assert made.failed == {1: "MemoryError"}
    with monkeypatch.context() as header:
        header.setattr("imagen_fast.data.decode.batch.pillow_size", no_memory)
        assert decode_batch([good, other], CenterCrop(), 24).failed == {1: "MemoryError"}
    monkeypatch.setattr(
        "imagen_fast.data.decode.batch.pillow_pixels", lambda data: np.zeros((3, 3, 3), np.uint8)
    )
    made = decode_batch([good, other], np.array([[0, 0, 30, 30]] * 2), 24)
    assert list(made.failed) == [1]
    assert "must be a non-empty part of the image's 3x3 pixels" in made.failed[1]
    assert bool(made.pixels[0].any())
    assert not bool(made.pixels[1].any())


def test_pillows_limit_on_pixels_is_ours(monkeypatch):
    data = encoded(photograph(64, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in decode_batch([data], CenterCrop(), 24).failed[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert not decode_batch([data], CenterCrop(), 24).failed


def test_a_strip_gets_a_box_within_any_ratio():
    for size in ((50, 1), (1, 50)):
        image = encoded(photograph(*size))
        assert not decode_batch([image], RandomResizedCrop(ratio=(0.2, 0.4)), 8).failed
        assert not decode_batch([image], RandomResizedCrop(ratio=(2.5, 5.0)), 8).failed


def test_a_box_that_shrinks_too_far_is_refused_with_a_reason():
    made = decode_batch(
        [np.zeros((1, 9000, 3), np.uint8)] * 2, np.array([[0, 0, 9000, 1], [0, 0, 8000, 1]]), 1
    )
    assert list(made.failed) == [0]
    assert "not further" in made.failed[0]


def test_a_file_that_goes_wrong_in_the_middle_is_what_pillow_makes_of_it():
    """libjpeg warns and Pillow accepts: so do we, with the same pixels."""
    data = bytearray(encoded(photograph(64, 64)))
    data[len(data) * 2 // 3] ^= 0x5A
    made = decode_batch([bytes(data)], np.array([[0, 0, 64, 64]]), 64, dtype=torch.uint8)
    assert not made.failed
    assert torch.equal(made.pixels[0], by_pillow(bytes(data), (0, 0, 64, 64), (64, 64)))


def test_neither_threads_nor_neighbours_change_a_bit():
    images = [
        encoded(photograph(50 + 7 * i, 90 - 5 * i, i), "PNG" if i % 5 == 0 else "JPEG") for i in range(12)
    ]
    one = decode_batch(images, RandomResizedCrop(), 48, flip=0.5, seed=3, threads=1)
    assert len({*one.views.mirrored.tolist()}) == 2
    for threads in (2, 5):
        many = decode_batch(images, RandomResizedCrop(), 48, flip=0.5, seed=3, threads=threads)
        assert torch.equal(many.pixels, one.pixels)
    for other in (4, None):
        assert not torch.equal(decode_batch(images, RandomResizedCrop(), 48, seed=other).pixels, one.pixels)
    for i, image in enumerate(images):
        assert torch.equal(decode_batch([image], one.views[i : i + 1], 48).pixels[0], one.pixels[i])


def test_views_are_used_again_and_an_output_too():
    images = [encoded(photograph(80, 60, i)) for i in range(4)]
    first = decode_batch(images, RandomResizedCrop(), 40, patch=8, flip=0.5, dtype=torch.bfloat16)
    out = torch.full_like(first.pixels, torch.nan)
    again = decode_batch(images, first.views, 40, patch=8, dtype=torch.bfloat16, out=out)
    assert again.pixels is out
    assert torch.equal(out, first.pixels)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (64, 64)])
def test_the_central_view_is_that_of_single_pictures(size):
    data = encoded(photograph(*size))
    made = decode_batch([data], CenterCrop(), 48, dtype=torch.uint8, filter="bicubic").pixels[0]
    picture = DecodedPicture(Image.fromarray(decode_image(data)))
    wanted = np.asarray(CenterCrop().view(picture, 48)).transpose(2, 0, 1)
    nearly_the_same(made, torch.from_numpy(wanted.copy()))


def test_smaller_scales_stay_near():
    """At twice the pixels and more; and where there are fewer nothing changes."""
    data = encoded(photograph(80, 60).resize((640, 480)))
    box = np.array([[10, 20, 630, 470]])
    exact = decode_batch([data], box, 60, dtype=torch.uint8).pixels
    scaled = decode_batch([data], box, 60, dtype=torch.uint8, dct_scaling=1.5).pixels
    difference = (exact.int() - scaled.int()).abs().float()
    assert 0 < float(difference.mean()) < 0.6
    assert torch.equal(
        decode_batch([data], box, 400, dtype=torch.uint8, dct_scaling=1.5).pixels,
        decode_batch([data], box, 400, dtype=torch.uint8).pixels,
    )


def test_random_boxes_are_torchvisions_distribution():
    transforms = pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    count, image = 20_000, Image.new("RGB", (70, 100))
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(image, (0.2, 1.0), (0.75, 4 / 3)) for _ in range(count)]
    )
    boxes = random_boxes(np.random.default_rng(0), np.tile((70, 100), (count, 1)), (0.2, 1.0), (0.75, 4 / 3))
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.abs(np.quantile(ours, quantile, 0) - np.quantile(theirs, quantile, 0)).max() <= 2


def test_extreme_shapes_get_the_largest_box_within_the_ratio():
    boxes = random_boxes(
        np.random.default_rng(0), np.array([[1000, 10], [10, 1000]]), (0.9, 1.0), (0.75, 4 / 3)
    )
    assert boxes.tolist() == [[493, 0, 506, 10], [0, 493, 10, 506]]


def test_pixels_are_taken_too_of_any_strides():
    image = photograph(50, 40)
    pixels = np.asarray(image)
    backwards = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]
    box = np.array([[3, 2, 45, 40]] * 2)
    made = decode_batch([backwards, encoded(image, "PNG")], box, 24, dtype=torch.uint8)
    assert torch.equal(made.pixels[0], made.pixels[1])
    for wrong in (pixels.astype(np.float32), pixels[..., 0], pixels[:0], None, "name.jpg"):
        with pytest.raises(InvalidInput, match=r"image 1 must be bytes, or uint8 \[H, W, 3\]"):
            decode_batch([pixels, wrong], box, 24)


def test_nothing_is_decoded_of_no_images():
    made = decode_batch([], RandomResizedCrop(), 32)
    assert made.pixels.shape == (0, 3, 32, 32)
    assert not made.failed


def test_bad_input():
    data, box = [encoded(photograph(30, 20))], np.array([[0, 0, 30, 20]])
    for match, given_ in {
        "channels must be 1 or 3, not 2": {"channels": 2},
        "patches of 5 must divide 32x32": {"patch": 5},
        "size must be at least 1, not 0x32": {"size": (0, 32)},
        "flip must be a probability, not 2": {"flip": 2.0},
        r"flip must be a probability or bool \[1\]": {"flip": np.array([1, 0])},
        "dct scaling must be at least 1.0 pixels, or None, not 0.5": {"dct_scaling": 0.5},
        "1 images need as many crops, not 2": {"crops": np.tile(box, (2, 1))},
        r"the crop of image 0, \[0, 0, 31, 20\], must be .* its 30x20 pixels": {
            "crops": np.array([[0, 0, 31, 20]])
        },
        r"boxes must be int64 \[1, 4\], not int64 \[1, 3\]": {"crops": box[:, :3]},
        "mean and std must have 3 values each": {"mean": (0.5,), "std": (0.5,)},
        "out must be torch.float32": {"out": torch.empty(1, 3, 32, 31)},
        "dtype must be one of": {"dtype": torch.float64},
        "filter must be one of": {"filter": "lanczos"},
        r"crops must be a sampler, views or int \[B, 4\], not int": {"crops": 3},
        "views say themselves what is mirrored": {"crops": Views.of_boxes(box, (32, 32)), "flip": 0.5},
        "the view of image 0, 32x32 pixels from .* must lie within the 16x16": {
            "crops": Views.of_boxes(box, (16, 16))
        },
    }.items():
        with pytest.raises(InvalidInput, match=match):
            decode_batch(data, **({"crops": box, "size": 32} | given_))


def test_a_device_that_cannot_serve_is_named(monkeypatch):
    data, box = [encoded(photograph(30, 20))], np.array([[0, 0, 30, 20]])
    assert decode_batch(data, box, 8, device="cpu").pixels.device == torch.device("cpu")
    for device, match in {"meta": "made on the CPU or on a GPU, not on meta", "tpu0": "not tpu0"}.items():
        with pytest.raises(InvalidInput, match=match):
            decode_batch(data, box, 8, device=device)
    with pytest.raises(InvalidInput, match="out must be on cpu, not on meta"):
        decode_batch(data, box, 8, device="cpu", out=torch.empty(1, 3, 8, 8, device="meta"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="cannot be made on cuda:1: PyTorch finds no CUDA device"):
        decode_batch(data, box, 8, device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailable, match="cannot be made on cuda:1: there are 1 CUDA devices"):
        decode_batch(data, box, 8, device="cuda:1")
    with pytest.raises(InvalidInput, match="dct scaling must be None on a GPU"):
        decode_batch(data, box, 8, device="cuda:0", dct_scaling=2.0)


def test_a_thumbnail_of_one_pixel_and_a_profile():
    """The least image, and one with segments that are none of ours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image in (photograph(1, 1), photograph(3, 200)):
        data = encoded(image, icc_profile=profile)
        made = decode_batch([data], np.array([[0, 0, *image.size]]), 8, dtype=torch.uint8)
        nearly_the_same(made.pixels[0], by_pillow(data, (0, 0, *image.size), (8, 8)))


def test_a_central_crop_is_no_more_than_the_image():
    with pytest.raises(
        InvalidInput, match="the share of a central crop must lie above 0 and at most at 1, not 2"
    ):
        CenterCrop(2.0)


def test_views_say_what_does_not_fit():
    with pytest.raises(InvalidInput, match=r"resized must be int64 \[1, 2\]"):
        Views(np.zeros((1, 4), int), np.zeros((1, 3), int), np.zeros((1, 2), int), np.zeros(1, bool))
