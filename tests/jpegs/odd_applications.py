"""What a JPEG has beside its picture: application segments, comments, an orientation."""

from __future__ import annotations

import struct

from jpeg_writer import (
    APP0,
    APP1,
    APP2,
    APP13,
    APP14,
    COM,
    EOI,
    JFIF,
    SOF_BASELINE,
    SOI,
    SOS,
    adobe,
    segment,
)
from odd_files import File, Files, inserted, left, picture, saved, without


def subjects() -> list[Files]:
    return [applications(), orientations()]


def applications() -> Files:
    good = saved(picture(33, 21))
    thumbnail = saved(picture(8, 6))
    yield "jfif-thumbnail", File(inserted(good, 2, segment(APP0, JFIF[:-2] + b"\3\2" + bytes(18))))
    yield "jfif-says-a-thumbnail", File(inserted(good, 2, segment(APP0, JFIF[:-2] + b"\xff\xff")))
    yield "jfif-extension", File(inserted(good, 20, segment(APP0, b"JFXX\0\x10" + thumbnail)))
    yield "jfif-extension-palette", File(inserted(good, 20, segment(APP0, b"JFXX\0\x11\1\1" + bytes(769))))
    yield "jfif-version-9", left(inserted(good, 2, segment(APP0, b"JFIF\0\x09\x09\0\0\1\0\1\0\0")))
    bare = without(good, APP0)
    yield "jfif-missing", File(bare)
    yield "jfif-late", File(inserted(bare, 2, segment(COM, b"first") + segment(APP0, JFIF)))
    yield "comment", File(inserted(good, 2, segment(COM, b"x" * 500)))
    yield "comment-longest", File(inserted(good, 2, segment(COM, b"x" * 65533)))
    yield "comment-empty", File(inserted(good, 2, segment(COM, b"")))
    yield "comment-of-markers", File(inserted(good, 2, segment(COM, EOI + SOI + b"\xff\xda\xff\xc0")))
    yield "comment-after-the-frame", File(inserted(good, good.index(b"\xff\xda"), segment(COM, b"late")))
    yield "thumbnail-in-a-comment", File(inserted(good, 2, segment(COM, thumbnail)))
    every_one = b"".join(segment(APP0 + number, bytes(number)) for number in range(16))
    yield "every-application", File(inserted(good, 2, every_one))
    for length in (0, 1):
        for name, marker in (("application", 0xE5), ("comment", COM), ("exif", APP1), ("jfif", APP0)):
            yield f"{name}-of-length-{length}", File(inserted(good, 2, bytes((0xFF, marker, 0, length))))
    yield "application-past-the-end", left(inserted(good, 2, b"\xff\xe5\xff\xff"))
    profile = b"ICC_PROFILE\0"
    parts = [segment(APP2, profile + bytes((number, 2)) + bytes(9)) for number in (2, 1)]
    yield "profile", File(inserted(good, 2, segment(APP2, profile + b"\1\1" + bytes(300))))
    yield "profile-of-two", File(inserted(good, 2, b"".join(parts)))
    yield "profile-a-part-missing", File(inserted(good, 2, parts[0]))
    resource = b"Photoshop 3.0\0008BIM"
    for length in (7, 16):
        resolution = resource + b"\x03\xed\0\0\0\0\0\x10" + bytes(length)
        yield f"photoshop-resolution-of-{length}", File(inserted(good, 2, segment(APP13, resolution)))
    yield "photoshop-short-number", File(inserted(good, 2, segment(APP13, resource + b"\3")))
    yield "several-pictures-nonsense", File(inserted(good, 2, segment(APP2, b"MPF\0nonsense")))
    # Pillow's own reader of segments fails at those that end too early; to libjpeg they are somebody else's.
    for name, marker, text, least in (
        ("jfif", APP0, JFIF, 7),
        ("adobe", APP14, adobe(1)[4:], 7),
        ("profile", APP2, profile + b"\1\1", 14),
    ):
        for length in range(least - 2, len(text) + 1):
            short = segment(marker, text[:length])
            yield f"{name}-of-{length}", File(inserted(good, 2, short), natively=length >= least)
    yield "photoshop-without-a-name", left(inserted(good, 2, segment(APP13, resource + b"\3\xed")))


# --- orientation --------------------------------------------------------------------------------------


def entry(tag: int, kind: int, count: int, value: int, order: str) -> bytes:
    """TIFF 6.0: a SHORT lies in the first bytes of the field."""
    field = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    return struct.pack(order + "HHI", tag, kind, count) + field


def exif(*entries: tuple[int, int, int, int], order: str = ">", rest: bytes = b"") -> bytes:
    header = (b"MM" if order == ">" else b"II") + struct.pack(order + "HIH", 42, 8, len(entries))
    tags = b"".join(entry(*each, order) for each in entries)
    return segment(APP1, b"Exif\0\0" + header + tags + bytes(4) + rest)


def orientations() -> Files:
    good = saved(picture(37, 22))
    turned = 0x0112
    for value in range(10):
        for order in "<>":
            of = f"orientation-{value}-{'little' if order == '<' else 'big'}"
            yield of, File(inserted(good, 2, exif((turned, 3, 1, value), order=order)))
    for value in (3, 6):
        progressive = saved(picture(37, 22), progressive=True, subsampling=1)
        yield f"orientation-{value}-progressive", File(inserted(progressive, 2, exif((turned, 3, 1, value))))
    plain_exif = exif((turned, 3, 1, 6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf tiff:Orientation='6'/></x:xmpmeta>"
    for name, segments, natively in (
        ("long", exif((turned, 4, 1, 6)), False),
        ("byte", exif((turned, 1, 1, 6 << 24)), False),
        ("text", exif((turned, 2, 2, 0x36000000)), False),
        ("kind-0", exif((turned, 0, 1, 6)), False),
        ("kind-99", exif((turned, 99, 1, 6)), False),
        ("of-2", exif((turned, 3, 2, 6)), False),
        ("of-0", exif((turned, 3, 0, 6)), False),
        ("of-many", exif((turned, 3, 1 << 30, 6)), False),
        ("65535", exif((turned, 3, 1, 65535)), True),
        ("twice", exif((turned, 3, 1, 6), (turned, 3, 1, 3)), False),
        ("after-others", exif((0x0100, 4, 1, 37), (0x0101, 4, 1, 22), (turned, 3, 1, 8)), True),
        ("before-a-broken-entry", exif((turned, 3, 1, 8), (0x010F, 2, 100, 1 << 20)), False),
        ("in-two-segments", plain_exif + exif((turned, 3, 1, 3)), False),
        ("none", exif((0x0100, 4, 1, 37)), True),
        ("no-entries", exif(), True),
        ("header-alone", segment(APP1, b"Exif\0\0"), False),
        ("header-broken", plain_exif.replace(b"MM\0*", b"MX\0*"), False),
        ("header-mixed", plain_exif.replace(b"MM\0*", b"II\0*"), False),
        ("cut", segment(APP1, plain_exif[4:-8]), False),
        ("cut-in-the-header", segment(APP1, plain_exif[4:14]), False),
        ("directory-far", plain_exif.replace(b"\0*\0\0\0\x08", b"\0*\0\xff\xff\xff"), False),
        ("directory-in-itself", plain_exif.replace(b"\0*\0\0\0\x08", b"\0*\0\0\0\0"), False),
        ("many-entries", plain_exif.replace(b"\0\x08\0\1", b"\0\x08\xff\xff"), False),
        ("another-directory", exif((turned, 3, 1, 6)).replace(bytes(4), b"\0\0\0\x08"), True),
        ("xmp", segment(APP1, xmp), False),
        ("xmp-and-exif", segment(APP1, xmp) + plain_exif, True),
        ("named-otherwise", segment(APP1, b"exif\0\0" + plain_exif[10:]), True),
        ("in-application-2", plain_exif.replace(b"\xff\xe1", b"\xff\xe2"), True),
    ):
        yield f"orientation-{name}", File(inserted(good, 2, segments), natively)
    # Pillow looks for the resolution, and fails at one that is a text.
    unit, resolution = (0x0128, 3, 1, 2), (0x011A, 2, 1, 0)
    no_jfif = without(good, APP0)
    yield "resolution-of-no-text", left(inserted(no_jfif, 2, exif(resolution, unit)))
    frame = good.index(bytes((0xFF, SOF_BASELINE)))
    yield "orientation-after-the-tables", File(inserted(good, frame, plain_exif))
    scan = good.index(bytes((0xFF, SOS)))
    yield "orientation-after-the-frame", File(inserted(good, scan, plain_exif))
    yield "orientation-after-the-scan", left(good[:-2] + plain_exif + EOI)
