import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from imagen_fast.data import CorruptImage, decode_image, open_image
from imagen_fast.data.decode import picture as decode
from imagen_fast.native import JpegError, jpeg_available


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "GIF"),
        ("RGB", "BMP"),
        ("L", "JPEG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("CMYK", "JPEG"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_converts_as_pillow_does(photograph, encode, tmp_path, mode, kind, channels):
    data = encode(photograph.convert(mode), kind)
    path = tmp_path / "image"
    path.write_bytes(data)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(180, 240, channels)
    got = decode_image(data, channels)
    assert got.dtype == np.uint8
    # A native decoder may round one intensity step otherwise.
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_sixteen_bit_gray_keeps_its_upper_byte(encode):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    got = decode_image(encode(Image.fromarray(values), "PNG"), channels=1)
    assert (got[..., 0] == values >> 8).all()


def test_palette_with_transparency_warns_of_nothing(photograph, encode, recwarn):
    image = photograph.convert("P")
    data = encode(image, "PNG", transparency=bytes(range(256)))
    assert (decode_image(data) == np.asarray(image.convert("RGB"))).all()
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photograph, encode, tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph, kind, exif=exif)
    plain = decode_image(encode(photograph, kind)).astype(int)
    turn = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x[::-1].transpose(1, 0, 2),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: x[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    assert open_image(data).size == ((240, 180) if orientation < 5 else (180, 240))
    assert np.abs(decode_image(data) - turn(plain)).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_out_of_range_is_none(photograph, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_image(encode(photograph, exif=exif)).size == (240, 180)


def test_broken_exif_is_no_reason_to_lose_an_image(photograph, encode):
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(range(40))
    assert decode_image(encode(photograph, exif=broken)).shape == (180, 240, 3)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_a_crop_is_a_crop_of_the_whole(photograph, encode, options):
    picture = open_image(encode(photograph, quality=90, **options))
    whole = np.asarray(picture.crop()).astype(int)
    for left, top, right, bottom in [
        (0, 0, 240, 180),
        (17, 33, 101, 178),
        (239, 179, 240, 180),
        (1, 0, 2, 180),
    ]:
        part = np.asarray(picture.crop((left, top, right, bottom)))
        assert np.abs(part - whole[top:bottom, left:right]).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_files_are_refused_with_a_reason(photograph, encode, kind):
    data = encode(photograph, kind)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(CorruptImage, match=r"\w"):
            open_image(data[: int(len(data) * share)]).crop((0, 0, 8, 8))


def test_half_a_download_padded_with_zeros_is_refused(photograph, encode):
    data = encode(photograph)
    with pytest.raises(CorruptImage, match="truncated"):
        open_image(data[: len(data) // 2] + bytes(len(data) // 2)).crop((0, 0, 8, 8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, world", "the bytes are no JPEG, PNG, WebP, GIF or BMP image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "the bytes are no JPEG"),
        (b"\xff\xd8\xff\xe0", "."),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(data, reason):
    with pytest.raises(CorruptImage, match=reason):
        decode_image(data)


def test_a_decompression_bomb_is_refused(encode, monkeypatch):
    data = encode(Image.new("1", (3000, 3000)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(CorruptImage, match="9000000 pixels"):
        decode_image(data)


def test_flipped_bits_raise_nothing_but_corrupt_image(photograph, encode):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP"):
        clean = encode(photograph.resize((48, 36)), kind)
        for _ in range(150):
            data = bytearray(clean)
            for place in rng.integers(0, len(data), size=4):
                data[place] = rng.integers(256)
            with contextlib.suppress(CorruptImage):
                assert decode_image(bytes(data)).ndim == 3


@pytest.fixture
def native_regions(monkeypatch):
    """The regions asked of a native decoder that answers with white."""
    regions = []

    def white(data, region):
        regions.append(region)
        left, top, right, bottom = region or (0, 0, 240, 180)
        return torch.full((bottom - top, right - left, 3), 255, dtype=torch.uint8)

    monkeypatch.setattr(decode, "jpeg_available", lambda: True)
    monkeypatch.setattr(decode, "decode_jpeg", white)
    return regions


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_plain_jpegs_go_to_the_native_decoder(photograph, encode, native_regions, channels):
    for mode in ("RGB", "L"):
        picture = open_image(encode(photograph.convert(mode)), channels)
        assert picture.size == (240, 180)
        crop = np.asarray(picture.crop((5, 6, 50, 60)))
        assert crop.shape == ((54, 45, 3) if channels == 3 else (54, 45))
        assert (crop == 255).all()
    assert native_regions == [(5, 6, 50, 60)] * 2


def test_only_plain_upright_jpegs_go_to_the_native_decoder(photograph, encode, native_regions):
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in (
        encode(photograph, exif=turned),
        encode(photograph.convert("CMYK")),
        encode(photograph, "MPO", save_all=True, append_images=[photograph]),
        encode(photograph, "PNG"),
    ):
        assert open_image(data).crop((0, 0, 9, 9)).size == (9, 9)
    assert not native_regions


def test_what_the_native_decoder_refuses_goes_to_pillow(photograph, encode, monkeypatch):
    def refuse(data, region):
        raise JpegError("arithmetic coding is not supported")

    data = encode(photograph)
    monkeypatch.setattr(decode, "jpeg_available", lambda: False)
    expected = np.asarray(open_image(data).crop((5, 6, 50, 60)))
    monkeypatch.setattr(decode, "jpeg_available", lambda: True)
    monkeypatch.setattr(decode, "decode_jpeg", refuse)
    assert (np.asarray(open_image(data).crop((5, 6, 50, 60))) == expected).all()


@pytest.mark.skipif(not jpeg_available(), reason="built without libjpeg-turbo")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_native_decoder_gives_pillows_pixels(photograph, encode, monkeypatch, mode, options):
    data = encode(photograph.convert(mode), quality=90, **options)
    boxes = [None, (0, 0, 33, 21), (17, 33, 101, 178), (200, 100, 240, 180)]
    native = [np.asarray(open_image(data).crop(box)).astype(int) for box in boxes]
    monkeypatch.setattr(decode, "jpeg_available", lambda: False)
    for box, pixels in zip(boxes, native, strict=True):
        assert np.abs(pixels - np.asarray(open_image(data).crop(box))).max() <= 1
