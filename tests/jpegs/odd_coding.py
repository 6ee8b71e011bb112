"""Odd ways to code a picture: processes, samplings, colours, tables, coefficients."""

from __future__ import annotations

import numpy as np
from jpeg_arithmetic import Conditioning, arithmetic_scan
from jpeg_huffman import coded, flat_codes, huffman_scan, long_codes, longest_codes, lossless_scan, plain
from jpeg_writer import (
    APP0,
    DHT,
    DQT,
    EOI,
    JFIF,
    SOF_ARITHMETIC,
    SOF_BASELINE,
    SOF_EXTENDED,
    SOF_LOSSLESS,
    SOF_PROGRESSIVE,
    SOF_PROGRESSIVE_ARITHMETIC,
    SOI,
    SOS,
    ZIGZAG,
    Frame,
    Scan,
    adobe,
    empty_frame,
    interleaved,
    joined,
    one_by_one,
    progressive_scans,
    quantisation,
    random_frame,
    restart_interval,
    segment,
    start_of_frame,
)
from odd_files import FULL, HALF, STEPS, File, Files, inserted, left, picture, saved, whole, without


def subjects() -> list[Files]:
    return [processes(), samplings(), colours(), tables(), coefficients()]


def arithmetic(
    frame: Frame,
    scans: list[Scan],
    marker: int = SOF_ARITHMETIC,
    restart: int = 0,
    conditioning: Conditioning | None = None,
) -> bytes:
    parts = [SOI, STEPS, start_of_frame(frame, marker)]
    if restart:
        parts.append(restart_interval(restart))
    coded_scans = [bytes(arithmetic_scan(frame, scan, restart, conditioning)) for scan in scans]
    return b"".join([*parts, *coded_scans, EOI])


def called(data: bytes, marker: int) -> bytes:
    """As another process."""
    at = data.index(bytes((0xFF, SOF_BASELINE)))
    return data[: at + 1] + bytes((marker,)) + data[at + 2 :]


def processes() -> Files:
    frame = random_frame(41, 30, HALF)
    several = progressive_scans(frame)
    yield "baseline", File(plain(frame))
    yield "extended", File(plain(frame, marker=SOF_EXTENDED))
    yield "progressive", File(plain(frame, marker=SOF_PROGRESSIVE, scans=several))
    yield "progressive-restarts", File(plain(frame, marker=SOF_PROGRESSIVE, scans=several, restart=3))
    # What is missing is smoothed over, and not by each version of the library in the same way.
    for count in (1, 2, 5, len(several) - 1):
        yield f"progressive-{count}-scans", left(plain(frame, marker=SOF_PROGRESSIVE, scans=several[:count]))
    bands = [Scan((0, 1, 2), 0, 0), *(Scan((i,), 1, 63) for i in range(3))]
    yield "progressive-spectral", File(plain(frame, marker=SOF_PROGRESSIVE, scans=bands))
    yield "progressive-without-dc", left(plain(frame, marker=SOF_PROGRESSIVE, scans=several[1:]))
    nothing, two = empty_frame(600, 500), [Scan((0,), 0, 0), Scan((0,), 1, 63)]
    yield "progressive-long-run", File(plain(nothing, marker=SOF_PROGRESSIVE, scans=two))
    for name, scans, marker in (
        ("arithmetic", [interleaved(frame)], SOF_ARITHMETIC),
        ("arithmetic-one-by-one", one_by_one(frame), SOF_ARITHMETIC),
        ("arithmetic-progressive", several, SOF_PROGRESSIVE_ARITHMETIC),
    ):
        yield name, File(arithmetic(frame, scans, marker))
        yield f"{name}-restarts", File(arithmetic(frame, scans, marker, restart=3))
        conditioned = arithmetic(frame, scans, marker, conditioning=Conditioning(1, 3, 20))
        yield f"{name}-conditioned", File(conditioned)
    deep = random_frame(30, 20, HALF, precision=12)
    yield "12-bits", left(plain(deep, marker=SOF_EXTENDED))
    yield "12-bits-baseline", left(plain(deep))
    yield "12-bits-arithmetic", left(arithmetic(deep, [interleaved(deep)]))
    gray = empty_frame(30, 20)
    samples = np.asarray(picture(30, 20).convert("L")).astype(int)
    parts = SOI, start_of_frame(gray, SOF_LOSSLESS), bytes(lossless_scan(gray, samples)), EOI
    yield "lossless", left(b"".join(parts))
    for marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE):
        yield f"baseline-called-{marker:x}", left(called(plain(frame), marker))
    # No code of an arithmetic coder is wrong: it is some picture.
    yield "baseline-called-arithmetic", File(called(plain(frame), SOF_ARITHMETIC))
    yield "baseline-called-progressive", left(called(plain(frame), SOF_PROGRESSIVE))


def samplings() -> Files:
    def named(factors) -> str:
        return "-".join(f"{across}x{down}" for across, down in factors)

    for factors in (
        *(((h, v), (1, 1), (1, 1)) for h in (1, 2, 3, 4) for v in (1, 2, 3, 4) if h * v <= 8),
        *(((1, 1), (h, v), (h, v)) for h, v in ((2, 1), (1, 2), (2, 2))),
        ((2, 2), (1, 1), (2, 1)),
        ((2, 2), (2, 1), (1, 2)),
        ((2, 1), (1, 2), (1, 1)),
        ((1, 2), (2, 1), (1, 1)),
        ((4, 1), (2, 1), (1, 1)),
        ((2, 1), (2, 1), (1, 1)),
    ):
        frame = random_frame(67, 45, factors)
        yield f"sampling-{named(factors)}", File(plain(frame))
        yield f"sampling-{named(factors)}-one-by-one", File(plain(frame, scans=one_by_one(frame)))
    frame = random_frame(67, 45, ((4, 4), (1, 1), (1, 1)))
    yield "sampling-of-too-many-blocks", left(plain(frame))
    yield "sampling-of-12-blocks", left(plain(random_frame(67, 45, ((2, 2),) * 3)))
    yield "sampling-of-many-blocks-one-by-one", File(plain(frame, scans=one_by_one(frame)))
    for factors in (((3, 1), (2, 1), (1, 1)), ((3, 2), (1, 1), (2, 1)), ((1, 4), (1, 3), (1, 1))):
        yield f"sampling-{named(factors)}", left(plain(random_frame(67, 45, factors)))
    for factors in ((2, 2), (1, 2), (2, 1), (4, 4), (3, 2)):
        for width, height in ((41, 30), (8, 8)):
            frame = random_frame(width, height, (factors,))
            yield f"gray-{named((factors,))}-{width}x{height}", File(plain(frame))
    good = plain(random_frame(20, 20, FULL))
    at = good.index(bytes((0xFF, SOF_BASELINE))) + 11
    for factors in (0x00, 0x10, 0x01, 0x51, 0x15, 0xFF):
        yield f"sampling-{factors:02x}", left(good[:at] + bytes((factors,)) + good[at + 1 :])


def colours() -> Files:
    said = {"": b"", "jfif": segment(APP0, JFIF)} | {f"adobe-{x}": adobe(x) for x in (0, 1, 2, 3)}
    said["jfif-adobe-0"] = said["jfif"] + said["adobe-0"]
    said["adobe-0-jfif"] = said["adobe-0"] + said["jfif"]
    for name, before in said.items():
        for identifiers in (b"\1\2\3\4", b"\0\1\2\3", b"RGBK", b"rgbk", b"CMYK", b"\1\1\1\1", b"\1\42\43\4"):
            of = f"identifiers-{identifiers.hex()}-{name}"
            three = random_frame(20, 12, FULL, identifiers=identifiers)
            yield of, File(plain(three, before=before), natively=name not in ("adobe-2", "adobe-3"))
    four = random_frame(27, 18, ((1, 1),) * 4)
    for name, before in said.items():
        yield f"four-colours-{name}", left(plain(four, before=before))
    half = random_frame(27, 18, ((2, 2), (1, 1), (1, 1), (2, 2)))
    yield "four-colours-half", left(plain(half, before=adobe(2)))
    yield "two-colours", left(plain(random_frame(27, 18, FULL[:2])))
    yield "five-colours", left(plain(random_frame(27, 18, FULL[:1] * 5)))
    no_colour = segment(SOF_BASELINE, b"\x08\0\x08\0\x08\0")
    yield "no-colour", left(SOI + no_colour + segment(SOS, b"\0\0\x3f\0") + EOI)
    yield "gray-adobe-0", File(plain(random_frame(27, 18), before=adobe(0)))


# --- tables -------------------------------------------------------------------------------------------


def tables() -> Files:
    frame = random_frame(41, 30, HALF)
    good = plain(frame)
    rising = 1 + np.arange(64).reshape(8, 8)
    yield "steps-16-bits", File(plain(frame, steps=300, wide=True))
    yield "steps-16-bits-largest", File(plain(frame, steps=65535, wide=True))
    yield "steps-rising", File(plain(frame, steps={0: rising, 1: rising * 3}))
    yield "steps-of-1", File(plain(frame, steps=1))
    yield "steps-of-0", File(plain(frame, steps=0))
    numbers = random_frame(41, 30, FULL, tables=(3, 2, 0))
    yield "steps-3-2-0", File(plain(numbers, steps={3: 2, 2: 9, 0: 5}))
    yield "steps-missing", left(without(good, DQT))
    yield "steps-of-colour-missing", left(plain(frame, steps={0: 4}))
    yield "steps-table-4", left(inserted(good, 2, segment(DQT, b"\x04" + b"\1" * 64)))
    yield "steps-short", left(inserted(good, 2, segment(DQT, b"\0" + b"\1" * 63)))
    yield "steps-long", left(inserted(good, 2, segment(DQT, b"\0" + b"\1" * 65)))
    yield "steps-none", File(inserted(good, 2, segment(DQT, b"")))
    yield "steps-precision-2", File(inserted(good, 2, segment(DQT, b"\x20" + b"\0\1" * 64)))
    yield "steps-twice", File(inserted(good, 2, quantisation({0: 99, 1: 1})))
    y, cb, cr = (bytes(huffman_scan(frame, scan)) for scan in one_by_one(frame))
    others = quantisation({0: 50, 1: 9})
    yield "steps-between-scans", File(whole(frame, y, others, cb, quantisation({1: 30}), cr))
    late = SOI + quantisation({0: 4}) + start_of_frame(frame) + y + others + cb + cr + EOI
    yield "steps-only-between-scans", File(late)
    yield "steps-after-the-frame", File(SOI + start_of_frame(frame) + STEPS + y + cb + cr + EOI)

    yield "codes-long", File(plain(frame, codes=long_codes))
    yield "codes-of-16-bits", File(plain(frame, codes=longest_codes))
    yield "codes-2-3", File(plain(frame, scans=[Scan((0, 1, 2), tables=(2, 3, 3))]))
    yield "codes-of-each", File(plain(frame, scans=[Scan((0, 1, 2), tables=(0, 1, 2))]))
    # The library has the usual ones of K.3, for the frames of a film.
    yield "codes-missing-but-usual", File(without(saved(picture(41, 30)), DHT))
    several = {"marker": SOF_PROGRESSIVE, "scans": progressive_scans(frame)}
    yield "codes-of-16-bits-progressive", File(plain(frame, codes=longest_codes, **several))
    yield "codes-missing-progressive", left(without(plain(frame, **several), DHT))
    scan = huffman_scan(frame, interleaved(frame))
    of_one_symbol = bytes((0, 1)) + bytes(15) + b"\7"
    yield "codes-twice", File(whole(frame, segment(DHT, of_one_symbol), bytes(scan)))
    for name, payload in {
        "overfull": bytes((0, 3)) + bytes(15) + b"\0\1\2",
        "full": bytes((0, 2)) + bytes(15) + b"\0\1",
        "full-of-16-bits": bytes((0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2)) + bytes(range(17)),
        "symbol-17": bytes((0, 1)) + bytes(15) + b"\x11",
        "symbol-255": bytes((0, 1)) + bytes(15) + b"\xff",
        "of-257": b"\0" + bytes(14) + b"\x81\x80" + bytes(257),
        "short": b"\0\2" + bytes(15) + b"\0",
        "very-short": b"\0\2\0",
        "table-4": b"\4\1" + bytes(15) + b"\0",
        "kind-2": b"\x20\1" + bytes(15) + b"\0",
        "empty": b"\0" + bytes(16),
        "of-nothing": b"",
    }.items():
        # Instead of the one in use, and where none asks for it: then it is only read.
        data = scan.header + joined(scan.intervals)
        elsewhere = payload[:1].replace(b"\0", b"\3") + payload[1:]
        instead = whole(frame, scan.tables, segment(DHT, payload), data)
        yield f"codes-{name}", File(instead, natively=name == "of-nothing")
        readable = name not in ("of-257", "short", "very-short", "table-4", "kind-2")
        beside = whole(frame, scan.tables, segment(DHT, elsewhere), data)
        yield f"codes-{name}-unused", File(beside, natively=readable)


def coefficients() -> Files:
    def filled(blocks: np.ndarray, factors=((1, 1),), across: int = 8, **options) -> bytes:
        """Of one component, `across` blocks in a row, or the same in each component."""
        rows = -(-len(blocks) // across)
        frame = empty_frame(8 * across, 8 * rows, factors)
        for component in frame.components:
            component.blocks.reshape(-1, 8, 8)[: len(blocks)] = blocks
        return plain(frame, **({"steps": 1} | options))

    def only(place: int, value: int) -> np.ndarray:
        block = np.zeros((8, 8), int)
        block[divmod(place, 8)] = value
        return block

    for factors in (((1, 1),), FULL):
        of = "gray" if len(factors) == 1 else "colour"
        yield f"zeros-{of}", File(filled(np.zeros((16, 8, 8), int), factors))
        steps_of_dc = np.array([only(0, value) for value in (0, 1, -1, 50, -50, 99, 0, 30)])
        yield f"dc-only-{of}", File(filled(steps_of_dc, factors))
        # Differences of the longest category a baseline file may have, 11.
        extremes = np.array([only(0, value) for value in (1023, -1024, 1023, -1024, 0, -1024, 1023, 1023)])
        yield f"dc-extreme-{of}", File(filled(extremes, factors))
        for value in (60, -60):
            alone = np.array([only(i, value) for i in range(64)])
            yield f"each-place-alone-{value}-{of}", File(filled(alone, factors))
        ends = np.zeros((64, 64), int)
        for i in range(64):
            ends[i, ZIGZAG[: i + 1]] = 7
        yield f"end-at-each-place-{of}", File(filled(ends.reshape(64, 8, 8), factors))
        largest = np.array([only(i, 1023 - 2046 * (i % 2)) for i in range(64)])
        yield f"largest-{of}", File(filled(largest, factors))
        yield f"largest-largest-steps-{of}", File(filled(largest, factors, steps=255))
        yield f"largest-16-bit-steps-{of}", File(filled(largest, factors, steps=65535, wide=True))
        yield f"all-largest-{of}", File(filled(np.full((8, 8, 8), 1023), factors))
        yield f"all-least-{of}", File(filled(np.full((8, 8, 8), -1023), factors))
    sizes = np.array([only(i % 64, (1 << i % 11) - 1) for i in range(704)])
    yield "every-run-and-size", File(filled(sizes, across=32))
    rng = np.random.default_rng(0)
    sparse = rng.integers(-3, 4, (64, 8, 8)) * (rng.random((64, 8, 8)) < np.linspace(0, 1, 64)[:, None, None])
    yield "every-density", File(filled(sparse, steps=9))
    yield "every-density-long-codes", File(filled(sparse, steps=9, codes=longest_codes))
    yield "larger-than-allowed", File(filled(np.array([only(i, 32767) for i in range(64)])))

    frame = empty_frame(32, 16)
    dc, ac = (0, 0), (1, 0)
    for name, codes in {
        "run-past-the-end": [(dc, 0, 0, 0), *[(ac, 0xF0, 0, 0)] * 3, (ac, 0xF1, 1, 1)],
        "runs-of-zeros-past-the-end": [(dc, 0, 0, 0), *[(ac, 0xF0, 0, 0)] * 4],
        "zeros-to-the-end": [(dc, 0, 0, 0), *[(ac, 0xF0, 0, 0)] * 3, (ac, 0xE1, 1, 1)],
        "zeros-and-end": [(dc, 0, 0, 0), *[(ac, 0xF0, 0, 0)] * 3, (ac, 0x00, 0, 0)],
        "size-0": [(dc, 0, 0, 0), (ac, 0x30, 0, 0), (ac, 0x01, 1, 1), (ac, 0, 0, 0)],
        "dc-of-15-bits": [(dc, 15, 0x7FFF, 15), (ac, 0, 0, 0)],
        "dc-of-16-bits": [(dc, 16, 0x8000, 16), (ac, 0, 0, 0)],
        "dc-that-adds-up": [(dc, 11, 0x7FF, 11), (ac, 0, 0, 0)],
        "ac-of-15-bits": [(dc, 0, 0, 0), (ac, 0x0F, 0x7FFF, 15), (ac, 0, 0, 0)],
    }.items():
        scan = coded(Scan((0,)).header(frame), [codes * 8], flat_codes)
        parts = SOI, quantisation({0: 1}), start_of_frame(frame), bytes(scan), EOI
        yield name, File(b"".join(parts), natively=name not in ("size-0", "dc-of-16-bits"))
    # At a quarter of the scale an intermediate result has more than 16 bits.
    codes = [(dc, 0, 0, 0), (ac, 0x11, 1, 1), (ac, 0, 0, 0)]
    scan = coded(Scan((0,)).header(frame), [codes * 8], flat_codes)
    parts = SOI, quantisation({0: 0x7FFF}, wide=True), start_of_frame(frame), bytes(scan), EOI
    yield "steps-of-15-bits", File(b"".join(parts))
