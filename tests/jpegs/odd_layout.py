"""Odd orders, repetitions and ends of the segments and scans of a JPEG."""

from __future__ import annotations

from jpeg_huffman import huffman_scan, plain
from jpeg_writer import (
    APP0,
    COM,
    DNL,
    DRI,
    EOI,
    JFIF,
    SOF_BASELINE,
    SOF_PROGRESSIVE,
    SOI,
    SOS,
    Scan,
    interleaved,
    joined,
    one_by_one,
    progressive_scans,
    random_frame,
    restart_interval,
    segment,
    start_of_frame,
)
from odd_files import FULL, HALF, STEPS, File, Files, inserted, left, whole


def subjects() -> list[Files]:
    return [restarts(), scans(), sizes(), orders(), endings()]


def restarts() -> Files:
    frame = random_frame(67, 45, HALF)
    scan = huffman_scan(frame, interleaved(frame), restart=2)
    intervals = scan.intervals
    marks = [bytes((0xFF, 0xD0 + number)) for number in range(8)]
    right = marks[: len(intervals) - 1]

    def marked(between: list[bytes]) -> bytes:
        """The file with these between the intervals."""
        parts = [part for pair in zip(intervals, [*between, b""], strict=True) for part in pair]
        return whole(frame, restart_interval(2), scan.tables, scan.header, *parts)

    for every in (1, 2, 5, 14, 15, 65535):
        yield f"restart-{every}", File(plain(frame, restart=every))
    yield "restart-right", File(marked(right))
    for place in (0, 3, len(right) - 1):
        yield f"restart-{place}-missing", left(marked([*right[:place], b"", *right[place + 1 :]]))
    for step in (-3, -2, -1, 1, 2, 3, 4):
        yield f"restart-wrong-by-{step}", left(marked([*right[:4], marks[(4 + step) % 8], *right[5:]]))
    yield "restart-swapped", left(marked([*right[:2], right[3], right[2], *right[4:]]))
    yield "restart-none", left(marked([b""] * len(right)))
    yield "restart-at-the-end", File(marked(right)[:-2] + marks[len(right)] + EOI)
    yield "restart-filled", File(marked([b"\xff" * 3 + mark for mark in right]))
    yield "restart-after-junk", File(marked([right[0], b"\x12\x34" + right[1], *right[2:]]))
    yield "restart-4-twice", left(marked([*right[:3], right[4], *right[4:]]))
    yield "restart-unannounced", left(marked(right).replace(restart_interval(2), b""))
    yield "restart-announced-0", File(plain(frame, before=restart_interval(0)))
    yield "restart-announced-short", left(plain(frame, before=segment(DRI, b"\1")))
    changing = (
        restart_interval(number) + bytes(huffman_scan(frame, Scan((number,)), restart=number))
        for number in range(3)
    )
    yield "restart-changed-between-scans", File(whole(frame, *changing))


def scans() -> Files:
    frame = random_frame(41, 30, HALF)
    y, cb, cr = (bytes(huffman_scan(frame, scan)) for scan in one_by_one(frame))
    scan = huffman_scan(frame, interleaved(frame))
    colour = bytes(huffman_scan(frame, Scan((1, 2))))
    yield "scans-one-by-one", File(whole(frame, y, cb, cr))
    yield "scans-backwards", File(whole(frame, cr, cb, y))
    yield "scans-of-colour-together", File(whole(frame, y, colour))
    yield "scan-of-gray-alone", File(whole(frame, y))
    yield "scan-of-colour-alone", File(whole(frame, colour))
    yield "scan-twice", File(whole(frame, y, cb, cr, y))
    yield "scan-whole-twice", left(whole(frame, bytes(scan), bytes(scan)))
    yield "comment-between-scans", File(whole(frame, y, segment(COM, b"between"), cb, segment(APP0, b""), cr))
    yield "junk-between-scans", left(whole(frame, y, b"junk", cb, cr))
    yield "end-in-a-comment-and-no-other", left(whole(frame, y, segment(COM, EOI), cb[:-4])[:-2])
    data = joined(scan.intervals)
    for name, header in {
        "of-none": b"\0\0\x3f\0",
        "of-one-unknown": b"\1\7\0\0\x3f\0",
        "of-one-twice": b"\3\1\0\1\0\2\x11\0\x3f\0",
        "of-four": b"\4\1\0\2\x11\3\x11\4\x11\0\x3f\0",
        "short": b"\3\1\0\2\x11\0\x3f\0",
        "long": b"\3\1\0\2\x11\3\x11\0\x3f\0\0",
        "table-4": b"\3\1\x40\2\x11\3\x11\0\x3f\0",
        "ac-table-4": b"\3\1\4\2\x11\3\x11\0\x3f\0",
        "backwards": b"\3\3\0\2\x11\1\x11\0\x3f\0",
    }.items():
        yield f"scan-header-{name}", left(whole(frame, scan.tables, segment(SOS, header), data))
    # Of no meaning to a sequential file, and said wrongly by some cameras.
    for name, band in {
        "0-0": b"\0\0\0",
        "1-63": b"\1\x3f\0",
        "0-64": b"\0\x40\0",
        "low": b"\0\x3f\1",
    }.items():
        yield f"scan-band-{name}", left(whole(frame, scan.tables, scan.header[:-3], band, data))
    yield "scan-before-the-frame", left(SOI + STEPS + bytes(scan) + start_of_frame(frame) + EOI)
    yield "no-scan", left(whole(frame))
    yield "no-frame", left(SOI + STEPS + EOI)
    yield "frame-twice", left(whole(frame, start_of_frame(frame), bytes(scan)))
    yield "another-frame-after-the-scan", left(whole(frame, bytes(scan), start_of_frame(frame), bytes(scan)))
    for name, length in {"short": 16, "long": 18}.items():
        other = bytes((0xFF, SOF_BASELINE, 0, length))
        yield f"frame-{name}", left(whole(frame, bytes(scan)).replace(b"\xff\xc0\0\x11", other))
    yield "tables-alone-before", left(SOI + STEPS + EOI + plain(frame))


def of_size(data: bytes, width: int, height: int) -> bytes:
    """A file of 40x30 pixels that says otherwise."""
    said = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return data.replace(b"\x08\0\x1e\0\x28", said)


def sizes() -> Files:
    for width, height in ((1, 1), (1, 9), (9, 1), (8, 8), (16, 16), (7, 15), (65, 3), (3, 65)):
        for name, factors in (("full", FULL), ("half", HALF)):
            yield f"size-{width}x{height}-{name}", File(plain(random_frame(width, height, factors)))
    frame = random_frame(40, 30, HALF)
    rest = bytes(huffman_scan(frame, interleaved(frame)))
    lines = segment(DNL, (30).to_bytes(2, "big"))
    yield "height-0", left(SOI + STEPS + start_of_frame(frame, height=0) + rest + EOI)
    yield "height-0-said-later", left(SOI + STEPS + start_of_frame(frame, height=0) + rest + lines + EOI)
    yield "height-said-again-later", left(SOI + STEPS + start_of_frame(frame) + rest + lines + EOI)
    yield "height-said-again-before", File(SOI + STEPS + start_of_frame(frame) + lines + rest + EOI)
    yield "height-lower", File(SOI + STEPS + start_of_frame(frame, height=20) + rest + EOI)
    yield "height-higher", left(SOI + STEPS + start_of_frame(frame, height=60) + rest + EOI)
    for width, height in ((0, 30), (0, 0), (65501, 1), (1, 65501), (65535, 1)):
        yield f"said-{width}x{height}", left(of_size(plain(frame), width, height))
    # Each says that it has more pixels than Pillow will decode.
    several = plain(frame, marker=SOF_PROGRESSIVE, scans=progressive_scans(frame))
    four = plain(random_frame(40, 30, FULL[:1] * 4))
    for name, data in {"": plain(frame), "-progressive": several, "-cmyk": four}.items():
        for width, height in ((65535, 65535), (65500, 65500), (40000, 9000)):
            yield f"bomb-{width}x{height}{name}", left(of_size(data, width, height))


def orders() -> Files:
    good = plain(random_frame(40, 30, HALF), before=segment(APP0, JFIF))
    frame = good.index(bytes((0xFF, SOF_BASELINE)))
    scan = good.index(bytes((0xFF, SOS)))
    data = scan + 2 + int.from_bytes(good[scan + 2 : scan + 4], "big")
    middle = (data + len(good)) // 2
    for name, junk in {"byte": b"\0", "ones": b"\xff", "text": b"junk", "newline": b"\r\n"}.items():
        yield f"{name}-before-the-start", left(junk + good)
        yield f"{name}-after-the-start", File(inserted(good, 2, junk), name == "ones")
        yield f"{name}-before-the-frame", File(inserted(good, frame, junk), name == "ones")
        yield f"{name}-after-the-end", File(good + junk)
    head = good[:data].replace(b"\xff\xdb", b"\xff\xff\xff\xdb").replace(b"\xff\xc4", b"\xff" * 40 + b"\xc4")
    yield "fill-bytes-everywhere", File(head + good[data:-2] + b"\xff" + EOI)
    for marker in (0x00, 0x01, 0x02, 0xBF, 0xC8, 0xD0, 0xD7, 0xD8, 0xD9, 0xDE, 0xDF, 0xF0, 0xFD):
        piece = bytes((0xFF, marker))
        yield f"marker-{marker:02x}-before-the-frame", left(inserted(good, frame, piece))
        yield f"marker-{marker:02x}-before-the-scan", left(inserted(good, scan, piece))
    for marker in (0x01, 0x02, 0xC0, 0xC4, 0xD0, 0xD5, 0xD8, 0xD9, 0xDA, 0xDB, 0xE0, 0xFE):
        yield f"marker-{marker:02x}-in-the-middle", left(inserted(good, middle, bytes((0xFF, marker))))
    yield "segment-in-the-middle", left(inserted(good, middle, segment(COM, b"x" * 20)))
    yield "fill-bytes-in-the-middle", left(inserted(good, middle, b"\xff" * 5))
    yield "fill-bytes-before-a-stuffed-one", left(inserted(good, middle, b"\xff\xff\xff\0"))
    yield "ones-stuffed-in-the-middle", left(inserted(good, middle, b"\xff\0" * 8))
    # Other codes follow, and another picture; only some of the files end too late or too early for it.
    for number in range(20):
        place = 8 * data + 97 * number
        flipped = bytearray(good)
        flipped[place // 8] ^= 1 << place % 8
        yield f"flipped-{number}", File(bytes(flipped), natively=number in (0, 3, 8, 10, 11, 16))


def endings() -> Files:
    frame = random_frame(40, 30, HALF)
    for name, good in {
        "baseline": plain(frame),
        "progressive": plain(frame, marker=SOF_PROGRESSIVE, scans=progressive_scans(frame)),
        "restarts": plain(frame, restart=1),
    }.items():
        for eighth in range(8):
            yield f"{name}-{eighth}-eighths", left(good[: len(good) * eighth // 8])
            if eighth:
                yield f"{name}-{eighth}-eighths-and-an-end", left(good[: len(good) * eighth // 8] + EOI)
        for lost in (1, 2, 3, 4, 8):
            yield f"{name}-last-{lost}-lost", left(good[:-lost])
        yield f"{name}-zeros-at-the-end", left(good[:-40] + bytes(40))
        yield f"{name}-twice", File(good * 2)
        yield f"{name}-truncated-and-whole", left(good[: len(good) // 2] + good)
        yield f"{name}-two-ends", File(good + EOI)
        yield f"{name}-zeros-after-the-end", File(good + bytes(5000))
        yield f"{name}-end-filled", File(good[:-2] + b"\xff\xff\xff\xd9")
        yield f"{name}-junk-before-the-end", File(good[:-2] + b"junk" + EOI, natively=name != "progressive")
    for size in (1, 2, 3, 4, 20, 21, 100, 160, 300, 600, 620, 630, 700, 1000):
        yield f"first-{size}-bytes", left(plain(frame)[:size])
    yield "empty", left(b"")
    yield "start-and-end", left(SOI + EOI)
    yield "starts-alone", left(SOI * 100)
