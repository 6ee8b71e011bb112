"""The GPU's decoder without a GPU: its own lines under a loop over the threads, against the CPU's decoder.

CUDA and nvJPEG are stood in for (device_on_host/): a device that does nothing before it is waited for, and a
decoder that heeds no stream, as the chip's JPEG engine. What must wait and does not gives other pixels.
"""

from __future__ import annotations

import ctypes
import io
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_fast import native
from imagen_fast.data import CenterCrop, RandomResizedCrop, decode_batch
from imagen_fast.data.decode import batch as batch_module
from imagen_fast.native.decode_batch import FILTERS

HERE = Path(__file__).parent / "device_on_host"
SCALE, SHIFT = [0.0171, 0.0175, 0.0174], [-2.1, -2.0, -1.8]

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or not native.jpeg_available(), reason="needs cmake and libjpeg-turbo"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The decoder, and the stand-in for nvJPEG."""
    build = tmp_path_factory.mktemp("device_on_host")
    configured = subprocess.run(["cmake", "-S", HERE, "-B", build], capture_output=True, text=True)
    if "CUDAToolkit" in configured.stderr:
        pytest.skip("needs the headers of the CUDA toolkit")
    assert configured.returncode == 0, configured.stderr
    made = subprocess.run(["cmake", "--build", build, "--parallel"], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return build / "libdevice_on_host.so", build / "libnvjpeg_on_host.so"


class Decoder:
    """A ViewDecoder, as the module _cuda has it."""

    def __init__(self, device, nvjpeg):
        self.device = device
        why = ctypes.create_string_buffer(200)
        self.handle = ctypes.c_void_p(device.made.make_decoder(str(nvjpeg).encode(), why))
        if not self.handle:
            raise RuntimeError(why.value.decode())
        self.has_engine = bool(device.made.has_engine(self.handle))

    def __del__(self):
        if self.handle:
            self.device.made.drop_decoder(self.handle)

    def decode(self, images, views, out, places, *, filter, patch, scale, shift, size, threads):
        arrays = [np.frombuffer(x, np.uint8) if isinstance(x, bytes) else x for x in images]
        table = [
            [x.ctypes.data, x.size, *((x.shape[1], x.shape[0]) if x.ndim == 3 else (0, 0))] for x in arrays
        ]
        channels = out[0].numel() // (size[0] * size[1]) if len(out) else 3
        failures = ctypes.create_string_buffer(200 * len(images))
        self.device.made.decode_views(
            self.handle,
            ctypes.c_int64(len(images)),
            integers(table),
            integers(views),
            integers(places),
            FILTERS[filter],
            ctypes.c_void_p(out.data_ptr()),
            native.PIXEL_TYPES[out.dtype],
            integers([channels, *size]),
            ctypes.c_int64(patch or 0),
            (ctypes.c_float * 3)(*scale),
            (ctypes.c_float * 3)(*shift),
            threads,
            ctypes.c_uint64(self.device.stream),
            failures,
        )
        return [failures[i : i + 200].split(b"\0")[0].decode() for i in range(0, 200 * len(images), 200)]


def integers(values):
    flat = np.asarray(values).reshape(-1).tolist()
    return (ctypes.c_int64 * len(flat))(*flat)


class Device:
    """The device and nvJPEG, in a mood."""

    def __init__(self, path, nvjpeg):
        self.made, self.nvjpeg, self.path = ctypes.CDLL(str(path)), ctypes.CDLL(str(nvjpeg)), nvjpeg
        self.made.make_decoder.restype = ctypes.c_void_p
        self.made.make_stream.restype = ctypes.c_uint64
        self.stream = self.made.make_stream()
        self.behave()

    def behave(self, engine=True, skip=0, fail=0, version=13, backwards=False):
        self.nvjpeg.behave(int(engine), skip, fail, version)
        self.made.set_backwards(int(backwards))

    def decoder(self):
        return Decoder(self, self.path)

    def counts(self):
        """Allocations ever made; memories, streams and events alive."""
        counts = (ctypes.c_int64 * 4)()
        self.made.get_counts(counts)
        return list(counts)

    def objects(self):
        """Of nvJPEG: ever made, and alive."""
        return self.nvjpeg.count_ever(), self.nvjpeg.count_alive()

    def by_engine(self):
        return self.nvjpeg.count_by_engine()

    def by_kernels(self):
        return self.nvjpeg.count_by_kernels()

    def wait(self):
        self.made.wait_for(ctypes.c_uint64(self.stream))


@pytest.fixture
def device(built):
    return Device(*built)


def photograph(width, height, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 90 * np.sin(x / a + y / b) for a, b in ((9, 13), (17, 7), (5, 29))], -1)
    return Image.fromarray((waves + rng.normal(0, 15, waves.shape)).clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation, seed=0, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photograph(83, 47, seed), exif=exif, **options)


def whole(sizes, size):
    """Views of whole images."""
    return np.array([[0, 0, *wh, size[1], size[0], 0, 0, 0] for wh in sizes])


def both(
    device,
    decoder,
    images,
    views,
    size,
    dtype=torch.uint8,
    channels=3,
    patch=None,
    filter="bilinear",
    threads=2,
):
    """What the GPU's decoder makes, and what the CPU's does; and whom they give up."""
    height, width = size
    shape = (len(images), channels, height, width)
    if patch:
        shape = (len(images), height // patch * (width // patch), patch * patch * channels)
    ours, theirs = (torch.full(shape, 77, dtype=dtype) for _ in range(2))
    common = {
        "filter": filter,
        "patch": patch,
        "scale": SCALE,
        "shift": SHIFT,
        "size": size,
        "threads": threads,
    }
    numbers = np.arange(len(images))
    failures = decoder.decode(images, views, ours, numbers, **common)
    device.wait()
    expected = native.decode_views(images, views, theirs, numbers, least_pixels=0.0, **common)
    return ours, theirs, failures, expected


def below(rng, limit):
    return int(rng.integers(limit))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", native.PIXEL_TYPES)
def test_every_view_is_the_cpus_bit_by_bit(device, dtype, backwards):
    device.behave(backwards=backwards)
    rng, decoder = np.random.default_rng(0), device.decoder()
    for trial in range(60):
        images, views = [], []
        patch = [None, None, 2, 7, 16][below(rng, 5)]
        unit = patch or 1
        size = [unit * (1 + below(rng, 80 // unit)) for _ in range(2)]
        for _ in range(1 + below(rng, 3)):
            width, height = (1 + below(rng, 200) for _ in range(2))
            left, top = below(rng, width), below(rng, height)
            wide, high = (side + below(rng, 3) * below(rng, 30) for side in size[::-1])
            box = [left, top, left + 1 + below(rng, width - left), top + 1 + below(rng, height - top)]
            corner = [below(rng, wide - size[1] + 1), below(rng, high - size[0] + 1)]
            images.append(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            views.append([*box, wide, high, *corner, below(rng, 2)])
        channels, filter = (1, 3)[below(rng, 2)], list(FILTERS)[below(rng, 2)]
        ours, theirs, *failures = both(
            device, decoder, images, np.array(views), tuple(size), dtype, channels, patch, filter
        )
        assert not any(failures[0] + failures[1])
        if dtype == torch.uint8:
            assert torch.equal(ours, theirs), trial
        else:
            # A processor without fused products rounds once more, of values below 4.
            torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("filter", FILTERS)
def test_a_box_that_shrinks_a_thousand_times(device, filter):
    image = np.random.default_rng(0).integers(0, 256, (1500, 1200, 3), dtype=np.uint8)
    ours, theirs, *_ = both(
        device, device.decoder(), [image], whole([(1200, 1500)], (2, 1)), (2, 1), filter=filter
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(device, orientation, progressive):
    width, height = (47, 83) if orientation > 4 else (83, 47)
    image = oriented(orientation, progressive=progressive)
    views = np.array([[0, 0, width, height, 31, 22, 0, 0, 0], [5, 11, 40, 45, 40, 30, 9, 8, 1]])
    ours, theirs, failures, expected = both(device, device.decoder(), [image, image], views, (22, 31))
    assert failures == expected == ["", ""]
    assert torch.equal(ours, theirs)
    assert (device.by_engine(), device.by_kernels()) == ((0, 2) if progressive else (2, 0))


MOODS = {
    "no engine": ({"engine": False}, 0, 9),
    "an engine": ({}, 9, 0),
    "an engine that leaves out images": ({"skip": 3}, 6, 3),
    "an engine that leaves out all": ({"skip": 1}, 0, 9),
    "an engine that fails by one image": ({"fail": 43}, 8, 1),
    "an engine that fails by all": ({"fail": -1}, 0, 9),
}


@pytest.mark.parametrize("mood", MOODS)
def test_whatever_the_engine_does_every_image_comes(device, mood):
    behaviour, by_engine, by_kernels = MOODS[mood]
    device.behave(**behaviour)
    decoder = device.decoder()
    assert decoder.has_engine == behaviour.get("engine", True)
    images = [encoded(photograph(40 + i, 60 - i, i), subsampling=i % 3, quality=90) for i in range(8)]
    images.append(encoded(photograph(1, 1)))
    sizes = [*((40 + i, 60 - i) for i in range(8)), (1, 1)]
    ours, theirs, failures, _ = both(device, decoder, images, whole(sizes, (24, 33)), (24, 33))
    assert not any(failures)
    assert torch.equal(ours, theirs)
    assert (device.by_engine(), device.by_kernels()) == (by_engine, by_kernels)


def adobe_rgb():
    """Three components of red, green and blue, which Adobe's segment tells."""
    return encoded(photograph(40, 30), keep_rgb=True)


REFUSED = {
    "no JPEG": (lambda: encoded(photograph(40, 30), "PNG"), "no JPEG"),
    "empty": (lambda: b"", "no JPEG"),
    "four colours": (lambda: encoded(photograph(40, 30).convert("CMYK")), "other than 1 or 3"),
    "red, green, blue": (adobe_rgb, "not YCbCr"),
    "cut short": (lambda: encoded(photograph(40, 30))[:-300], "no end marker"),
    "a header only": (lambda: encoded(photograph(40, 30))[:100], "cut short|irregular"),
    "arithmetic": (lambda: encoded(photograph(40, 30)).replace(b"\xff\xc0", b"\xff\xc9"), "arithmetically"),
    "12 bits": (
        lambda: encoded(photograph(40, 30)).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "8 bits",
    ),
    "no height": (
        lambda: encoded(photograph(40, 30)).replace(b"\xff\xc0\0\x11\x08\0\x1e", b"\xff\xc0\0\x11\x08\0\0"),
        "does not say its size",
    ),
    "4:1:1": (
        lambda: encoded(photograph(40, 30)).replace(b"\x01\x22\0\x02\x11", b"\x01\x41\0\x02\x11"),
        "unusual resolution",
    ),
    "two orientations": (
        lambda: oriented(6)[:2] + oriented(3)[2:2 + 2 + 40] + oriented(6)[2:],
        "orientation|irregular|cut short",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_never_touches_its_neighbours(device, kind):
    make, why = REFUSED[kind]
    good = encoded(photograph(40, 30))
    out = torch.full((3, 3, 20, 20), 77, dtype=torch.uint8)
    options = {"filter": "bilinear", "patch": None, "scale": SCALE, "shift": SHIFT}
    failures = device.decoder().decode(
        [good, make(), good], whole([(40, 30)] * 3, (20, 20)), out,
        np.array([2, 1, 0]), size=(20, 20), threads=1, **options,
    )  # fmt: skip
    device.wait()
    assert [bool(failure) for failure in failures] == [False, True, False]

    assert re.search(why, failures[1]), failures[1]
    assert bool((out[1] == 77).all())
    assert torch.equal(out[0], out[2])
    assert len(out[0].unique()) > 20


def test_a_view_that_does_not_fit_is_that_images_failure(device):
    images = [encoded(photograph(40, 30))] * 2
    views = whole([(40, 30), (41, 30)], (20, 20))
    _, _, failures, expected = both(device, device.decoder(), images, views, (20, 20))
    assert failures == expected
    assert "non-empty part of the image's 40x30" in failures[1]


def test_calls_that_nobody_waits_for_keep_their_pixels(device):
    """The stream comes to all of them at the end; memory is used again before."""
    decoder, size = device.decoder(), (32, 32)
    options = {
        "filter": "bilinear",
        "patch": None,
        "scale": SCALE,
        "shift": SHIFT,
        "size": size,
        "threads": 1,
    }
    outs, wanted = [], []
    for call in range(7):
        images = [encoded(photograph(60, 50, 10 * call + i)) for i in range(3)]
        outs.append(torch.full((3, 3, *size), 77, dtype=torch.uint8))
        wanted.append(torch.empty_like(outs[-1]))
        views = whole([(60, 50)] * 3, size)
        assert not any(decoder.decode(images, views, outs[-1], np.arange(3), **options))
        native.decode_views(images, views, wanted[-1], np.arange(3), least_pixels=0.0, **options)
    assert bool((outs[-1] == 77).all()), "the stand-in should not have come to the last call"
    device.wait()
    for made, truth in zip(outs, wanted, strict=True):
        assert torch.equal(made, truth)


def test_nothing_grows_and_nothing_stays(device):
    rng = np.random.default_rng(0)
    before, (_, alive) = device.counts(), device.objects()
    decoder = device.decoder()
    images = [encoded(photograph(30 + i, 40, i), progressive=i % 2 == 0) for i in range(8)]
    images.append(b"broken")
    sizes = [*((30 + i, 40) for i in range(8)), (1, 1)]
    for round_ in range(400):
        count = 1 + below(rng, len(images))
        both(device, decoder, images[:count], whole(sizes[:count], (8, 8)), (8, 8), threads=1)
        if round_ == 99:
            middle = device.counts(), device.objects()
    assert (device.counts(), device.objects()) == middle
    del decoder
    assert device.counts()[1:] == before[1:]
    assert device.objects()[1] == alive


def test_two_decoders_in_two_threads(device):
    images = [encoded(photograph(70, 50, i), progressive=i % 3 == 0) for i in range(6)]
    views = whole([(70, 50)] * 6, (24, 24))
    alone = both(device, device.decoder(), images, views, (24, 24))[1]

    def work(_):
        decoder = device.decoder()
        return [both(device, decoder, images, views, (24, 24))[0] for _ in range(10)]

    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(work, range(2)):
            assert all(torch.equal(one, alone) for one in made)


def test_an_nvjpeg_that_cannot_serve_is_refused(device, tmp_path):
    old = shutil.copy(device.path, tmp_path / "old.so")
    ctypes.CDLL(str(old)).behave(1, 0, 0, 11)
    with pytest.raises(RuntimeError, match=r"must be 12.1 or newer, not 11.0"):
        Decoder(device, old)
    with pytest.raises(RuntimeError, match="does not load"):
        Decoder(device, tmp_path / "none.so")


def test_a_batch_of_everything_is_the_cpus(device, monkeypatch):
    """Files that nvJPEG does not take go to libjpeg and Pillow in the same call; reasons are the CPU's."""
    good = encoded(photograph(60, 50))
    images = [
        good,
        encoded(photograph(50, 60, 1), "PNG"),
        b"no image",
        encoded(photograph(40, 60, 2).convert("CMYK")),
        oriented(6),
        good[: len(good) // 2],
        np.asarray(photograph(33, 44, 3)),
        encoded(photograph(60, 40, 4), progressive=True),
        encoded(photograph(60, 40, 5).convert("L")),
        b"",
    ]
    decoder = device.decoder()

    def on_device(found, views, out, places, *, least_pixels, **options):
        assert not least_pixels
        return decoder.decode(found, views, out, places, **options)

    for crops, patch, channels in ((RandomResizedCrop(), 8, 3), (CenterCrop(), None, 1)):
        options = {"patch": patch, "channels": channels, "flip": 0.5, "seed": 1, "dtype": torch.uint8}
        wanted = decode_batch(images, crops, 32, **options)
        with monkeypatch.context() as gpu:
            gpu.setattr(batch_module, "_device", lambda device, out: torch.device("cuda", 0))
            gpu.setattr(batch_module.native, "decode_views", on_device)
            out = torch.zeros_like(wanted.pixels)
            made = decode_batch(images, crops, 32, out=out, threads=2, **options)
        device.wait()
        assert made.failed == wanted.failed
        assert sorted(made.failed) == [2, 5, 9]
        assert np.array_equal(made.views.boxes, wanted.views.boxes)
        assert torch.equal(out, wanted.pixels)
