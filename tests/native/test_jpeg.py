"""The JPEG decoder against Pillow: the same pixels, whole and by region, and no crash on any bytes."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagen_fast import native
from imagen_fast.errors import InvalidInput

pytestmark = pytest.mark.skipif(not native.jpeg_available(), reason="built without JPEG")

# Pillow's numbers for 4:4:4, 4:2:2, 4:2:0.
SUBSAMPLINGS = (0, 1, 2)
SIDE = st.integers(1, 140)


def photograph(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise on top, so that every coefficient of a block is busy."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / a + y / b + c) for a, b, c in ((9, 13, 0), (17, 7, 1), (5, 29, 2))]
    noisy = np.stack(waves, -1) + rng.normal(0, 20, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def encoded(width: int, height: int, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph(width, height)).convert(mode).save(
        buffer, "JPEG", **{"quality": 90, **options}
    )
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33), (97, 61)])
def test_whole_image_equals_pillow(size, progressive, subsampling):
    data = encoded(*size, subsampling=subsampling, progressive=progressive)
    assert native.jpeg_size(data) == size
    assert np.array_equal(native.decode_jpeg(data).numpy(), by_pillow(data))


@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_and_qualities_equal_pillow(mode, quality):
    data = encoded(45, 38, mode, quality=quality)
    assert np.array_equal(native.decode_jpeg(data).numpy(), by_pillow(data))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(1, 140),
    st.integers(1, 140),
    st.sampled_from(SUBSAMPLINGS),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_any_region_equals_pillow(width, height, subsampling, progressive, restarts, draw):
    options = {"subsampling": subsampling, "progressive": progressive}
    if restarts:
        options["restart_marker_blocks"] = 3
    data = encoded(width, height, **options)
    left, top = draw.draw(st.integers(0, width - 1)), draw.draw(st.integers(0, height - 1))
    right, bottom = draw.draw(st.integers(left + 1, width)), draw.draw(st.integers(top + 1, height))
    region = native.decode_jpeg(data, (left, top, right, bottom)).numpy()
    assert np.array_equal(region, by_pillow(data)[top:bottom, left:right])


@pytest.mark.parametrize(
    "region", [(0, 0, 0, 5), (5, 5, 5, 6), (-1, 0, 4, 4), (0, 0, 41, 30), (0, 9, 40, 31)]
)
def test_a_region_outside_the_image_is_refused(region):
    with pytest.raises(InvalidInput, match="40x30 pixels"):
        native.decode_jpeg(encoded(40, 30), region)


def test_buffers_of_every_kind():
    data = encoded(20, 10)
    for kind in (bytes, bytearray, memoryview):
        assert native.decode_jpeg(kind(data)).shape == (10, 20, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", bytes(1000), encoded(30, 30)[:-2]],
    ids=["empty", "one byte", "start only", "no frame", "PNG", "zeros", "no end"],
)
def test_what_is_no_jpeg_raises_one_sentence(data):
    with pytest.raises(native.JpegError) as raised:
        native.decode_jpeg(data)
    assert str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_truncated_file_is_refused_even_below_the_region():
    data = encoded(64, 640)
    with pytest.raises(native.JpegError, match="truncated"):
        native.decode_jpeg(data[: len(data) // 2], (0, 0, 8, 8))


def test_four_components_are_left_to_pillow():
    with pytest.raises(native.JpegError, match="4 colour components"):
        native.decode_jpeg(encoded(16, 16, "CMYK"))


def test_an_enormous_frame_is_refused_before_memory_is_taken():
    data = bytearray(encoded(16, 16))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    with pytest.raises(native.JpegError, match="pixels; at most"):
        native.decode_jpeg(data)


@pytest.mark.parametrize("progressive", [False, True])
def test_mutated_bytes_never_crash_and_never_differ_from_pillow(progressive):
    """What we decode without complaint, Pillow decodes to the same pixels; the rest raises JpegError."""
    rng = np.random.default_rng(1)
    original = encoded(61, 47, progressive=progressive, subsampling=2)
    taken = 0
    for _ in range(400):
        data = bytearray(original)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        try:
            pixels = native.decode_jpeg(data).numpy()
        except native.JpegError:
            continue
        taken += 1
        assert np.array_equal(pixels, by_pillow(bytes(data)))
    assert taken


def test_other_threads_run_during_a_decode():
    """Many at once give the same pixels; each call releases the interpreter lock."""
    data = encoded(300, 200)
    expected = by_pillow(data)
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(native.decode_jpeg, [data] * 40))
    assert all(np.array_equal(pixels.numpy(), expected) for pixels in decoded)


def test_the_pixels_are_a_tensor_of_bytes():
    pixels = native.decode_jpeg(encoded(12, 9))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
