"""An odd JPEG, or a broken one, is to us what it is to Pillow: accepted or refused, with the same pixels.

Versions of libjpeg-turbo (Pillow brings its own) differ in two kinds of these files. Both are left to Pillow:
lossless ones, which versions before 3 do not know, and progressive ones that lack scans, whose blocks each
version smooths in its own way.
"""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from jpeg_arithmetic import Conditioning
from jpeg_huffman import flat_codes, long_codes, longest_codes, plain
from jpeg_writer import (
    SOF_ARITHMETIC,
    SOF_EXTENDED,
    SOF_PROGRESSIVE,
    SOF_PROGRESSIVE_ARITHMETIC,
    interleaved,
    one_by_one,
    progressive_scans,
    random_frame,
)
from odd_coding import arithmetic
from odd_jpegs import corpus
from PIL import Image
from pillow_views import by_pillow, nearly_the_same

from imagen_fast import native
from imagen_fast.data import CenterCrop, CorruptImage, decode_batch, decode_image
from imagen_fast.data.decode.picture import FORMATS, UPRIGHT

# Of a nonsensical directory of pictures, and of truncated EXIF data.
pytestmark = pytest.mark.filterwarnings("ignore")
ODD = corpus()
MUTATIONS = 1500


def whole_by_pillow(data: bytes) -> np.ndarray | None:
    """None: it refuses the file."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.convert("RGB")
    except Exception:
        return None
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        orientation = None
    return np.asarray(pixels.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else pixels)


def assert_as_by_pillow(data: bytes, rng: np.random.Generator) -> bool:
    """The whole, a part of it and the whole in another size; returns whether it is accepted."""
    wanted = whole_by_pillow(data)
    if wanted is None:
        assert decode_batch([data], CenterCrop(), 8).failed
        with pytest.raises(CorruptImage):
            decode_image(data)
        return False
    height, width = wanted.shape[:2]
    assert np.array_equal(decode_image(data), wanted)
    left, top = (int(rng.integers(side)) for side in (width, height))
    right, bottom = left + 1 + int(rng.integers(width - left)), top + 1 + int(rng.integers(height - top))
    for box in ([0, 0, width, height], [left, top, right, bottom]):
        size = box[3] - box[1], box[2] - box[0]
        made = decode_batch([data], np.array([box]), size, dtype=torch.uint8)
        assert not made.failed
        assert np.array_equal(made.pixels[0].permute(1, 2, 0), wanted[box[1] : box[3], box[0] : box[2]])
    return True


@pytest.mark.parametrize("name", ODD)
def test_accepted_and_refused_as_by_pillow(name):
    data = ODD[name].data
    if assert_as_by_pillow(data, np.random.default_rng(0)):
        height, width = decode_image(data).shape[:2]
        box = [0, 0, width, height]
        made = decode_batch([data], np.array([box]), (33, 36), dtype=torch.uint8)
        nearly_the_same(made.pixels[0], by_pillow(data, box, (33, 36)))


@pytest.mark.skipif(not native.jpeg_available(), reason="built without JPEG")
def test_whether_a_file_is_decoded_natively_is_known(monkeypatch):
    """For speed, and for the fuzzer, which has no Pillow."""

    def refuse(data):
        raise CorruptImage("Pillow was asked")

    monkeypatch.setattr("imagen_fast.data.decode.batch.pillow_size", refuse)
    monkeypatch.setattr("imagen_fast.data.decode.batch.pillow_pixels", refuse)
    made = decode_batch([file.data for file in ODD.values()], CenterCrop(1.0), 16)
    otherwise = [name for i, (name, file) in enumerate(ODD.items()) if file.natively == (i in made.failed)]
    assert otherwise == []


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few of: a bit, a byte, a telling byte; a piece cut out, doubled or overwritten; a lost end."""
    telling = bytes.fromhex("00017f80c0c2c4d0d8d9dadbe1feff")
    made = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        # Headers are short, and most of what can go wrong is in them.
        at = int(rng.integers(len(made) if rng.random() < 0.5 else min(len(made), 700)))
        piece = slice(at, at + 1 + int(rng.integers(40)))
        kind, value = rng.integers(7), telling[rng.integers(len(telling))]
        if kind == 0:
            made[at] ^= 1 << rng.integers(8)
        elif kind == 1:
            made[at] = rng.integers(256)
        elif kind == 2:
            made[at] = value
        elif kind == 3 and len(made) > 50:
            del made[piece]
        elif kind == 4:
            made[at:at] = made[piece]
        elif kind == 5:
            made[piece] = bytes((value,)) * len(made[piece])
        elif at > 50 and rng.random() < 0.2:
            del made[at:]
    return bytes(made)


def test_mutations_are_accepted_and_refused_as_by_pillow():
    rng = np.random.default_rng(0)
    files = [file.data for file in ODD.values() if 30 < len(file.data) < 5000]
    accepted = 0
    for _ in range(MUTATIONS):
        data = mutated(files[rng.integers(len(files))], rng)
        try:
            width, height = Image.open(io.BytesIO(data)).size
        except Exception:
            width, height = 1, 1
        if width * height < 200_000:  # a larger one is no other, but takes its time
            accepted += assert_as_by_pillow(data, rng)
    assert MUTATIONS / 4 < accepted < MUTATIONS * 3 / 4


BOMBS = """
import io, resource, sys
from imagen_fast.data import CenterCrop, CorruptImage, decode_batch, decode_image
import odd_jpegs

files = odd_jpegs.corpus()
decode_batch([files["baseline"].data] * 2, CenterCrop(), 16, threads=2)
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (128 << 20), -1))
for name in sys.argv[1:]:
    data = files[name].data
    reasons = [decode_batch([data], CenterCrop(), 16, threads=1).failed[0]]
    try:
        decode_image(data)
    except CorruptImage as error:
        reasons.append(str(error))
    print(*(reason.replace("\\n", " ") for reason in reasons), sep="\\n")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_decompression_bomb_is_refused_before_memory_is_taken():
    bombs = [name for name in ODD if name.startswith("bomb-")]
    paths = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}"
    done = subprocess.run([sys.executable, "-P", "-c", paths + BOMBS, *bombs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reasons = done.stdout.splitlines()
    assert len(reasons) == 2 * len(bombs) >= 8
    assert all("decompression bomb" in reason for reason in reasons)


# --- the writer of the files itself -------------------------------------------------------------------


def test_what_the_writer_writes_are_its_coefficients():
    """The inverse transform of A.3.3 in full precision, of which an image's pixels are within a level."""
    frame, steps = random_frame(56, 40), 1 + np.arange(64).reshape(8, 8)
    u = np.arange(8)
    basis = np.cos((2 * u[None] + 1) * u[:, None] * np.pi / 16) * np.where(u, 0.5, 0.125**0.5)[:, None]
    exact = np.einsum("rcuv,uy,vx->rycx", frame.components[0].blocks * steps, basis, basis)
    pixels = whole_by_pillow(plain(frame, steps={0: steps}))[..., 0]
    assert np.abs(pixels - (exact.reshape(40, 56) + 128).clip(0, 255)).max() <= 1


@pytest.mark.parametrize("factors", [((1, 1),), ((2, 1), (1, 1), (1, 2))])
def test_every_coder_writes_the_same(factors):
    frame = random_frame(67, 45, factors)
    wanted, several = whole_by_pillow(plain(frame)), progressive_scans(frame)
    for restart in (0, 3):
        for codes in (flat_codes, long_codes, longest_codes):
            options = {"restart": restart, "codes": codes}
            for marker, scans in ((SOF_EXTENDED, one_by_one(frame)), (SOF_PROGRESSIVE, several)):
                made = plain(frame, marker=marker, scans=scans, **options)
                assert np.array_equal(whole_by_pillow(made), wanted)
        for conditioning in (None, Conditioning(1, 3, 20)):
            for marker, scans in (
                (SOF_ARITHMETIC, [interleaved(frame)]),
                (SOF_ARITHMETIC, one_by_one(frame)),
                (SOF_PROGRESSIVE_ARITHMETIC, several),
            ):
                made = arithmetic(frame, scans, marker, restart, conditioning)
                assert np.array_equal(whole_by_pillow(made), wanted)
