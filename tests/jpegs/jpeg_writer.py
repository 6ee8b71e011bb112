"""The parts of a JPEG, made from coefficients, for unusual and broken files. Clauses are those of ITU-T T.81.

A file is its segments one after another, each of them bytes: a broken file lacks one, or has it twice or in
the wrong place. The scans are in jpeg_huffman.py, with whole plain files, and in jpeg_arithmetic.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOF_BASELINE, SOF_EXTENDED, SOF_PROGRESSIVE, SOF_LOSSLESS = 0xC0, 0xC1, 0xC2, 0xC3
SOF_ARITHMETIC, SOF_PROGRESSIVE_ARITHMETIC = 0xC9, 0xCA
DHT, DQT, DNL, DRI, SOS, APP0, APP1, APP2, APP13, APP14, COM = (
    *(0xC4, 0xDB, 0xDC, 0xDD, 0xDA),
    *(0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE),
)

JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
# Figure A.6: the place in a block, row by row, of each coefficient of the zigzag.
ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))

Factors = Sequence[tuple[int, int]]
"""Horizontal and vertical sampling factor of each component."""
Blocks = list[tuple[int, list[int]]]
"""The component and the coefficients of each, in zigzag order."""


# --- the frame: what is written -----------------------------------------------------------------------


@dataclass(frozen=True)
class Component:
    """`blocks`: int [rows, columns, 8, 8], quantised, frequencies row by row; as many as whole MCUs have."""

    blocks: np.ndarray
    factors: tuple[int, int]
    identifier: int
    table: int  # of quantisation


@dataclass(frozen=True)
class Frame:
    width: int
    height: int
    components: tuple[Component, ...]
    precision: int = 8

    @property
    def most(self) -> tuple[int, int]:
        across, down = zip(*(component.factors for component in self.components), strict=True)
        return max(across), max(down)

    @property
    def mcus(self) -> tuple[int, int]:
        """Rows and columns of interleaved MCUs (A.2.3)."""
        across, down = self.most
        return -(-self.height // (8 * down)), -(-self.width // (8 * across))

    def own(self, number: int) -> tuple[int, int]:
        """Rows and columns of a component's blocks where it has a scan of its own (A.1.1, A.2.2)."""
        across, down = self.components[number].factors
        high, wide = -(-self.height * down // self.most[1]), -(-self.width * across // self.most[0])
        return -(-high // 8), -(-wide // 8)


def empty_frame(
    width: int,
    height: int,
    factors: Factors = ((1, 1),),
    *,
    identifiers: Sequence[int] = (1, 2, 3, 4, 5),
    tables: Sequence[int] = (0, 1, 1, 0, 0),
    precision: int = 8,
) -> Frame:
    """Blocks of zeros, for the caller to fill."""
    across, down = (max(each) for each in zip(*factors, strict=True))
    rows, columns = -(-height // (8 * down)), -(-width // (8 * across))
    return Frame(
        width,
        height,
        tuple(
            Component(np.zeros((rows * v, columns * h, 8, 8), int), (h, v), identifier, table)
            for (h, v), identifier, table in zip(factors, identifiers, tables, strict=False)
        ),
        precision,
    )


def random_frame(width: int, height: int, factors: Factors = ((1, 1),), seed: int = 0, **options) -> Frame:
    """Coefficients as a photograph's: the higher the frequency the smaller, most of them 0."""
    rng = np.random.default_rng((seed, width, height))
    frame = empty_frame(width, height, factors, **options)
    spread = 30 / (1 + np.add.outer(np.arange(8), np.arange(8))) ** 1.7
    for component in frame.components:
        component.blocks[:] = rng.normal(0, spread, component.blocks.shape).round()
    return frame


# --- segments (B.2) -----------------------------------------------------------------------------------


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def quantisation(tables: dict[int, np.ndarray | int], wide: bool = False) -> bytes:
    """B.2.4.1: tables by number, [8, 8] or one value for all; in 16 bits where `wide`."""
    payload = b""
    for number, table in tables.items():
        values = np.broadcast_to(table, (8, 8)).reshape(64)[ZIGZAG]
        payload += bytes((wide << 4 | number,)) + values.astype(">u2" if wide else np.uint8).tobytes()
    return segment(DQT, payload)


def start_of_frame(frame: Frame, marker: int = SOF_BASELINE, height: int | None = None) -> bytes:
    """B.2.2; another `height` than the frame's is a lie."""
    lines = frame.height if height is None else height
    payload = bytes((frame.precision,)) + lines.to_bytes(2, "big") + frame.width.to_bytes(2, "big")
    payload += bytes((len(frame.components),))
    for component in frame.components:
        across, down = component.factors
        payload += bytes((component.identifier, across << 4 | down, component.table))
    return segment(marker, payload)


def restart_interval(mcus: int) -> bytes:
    """B.2.4.4."""
    return segment(DRI, mcus.to_bytes(2, "big"))


def adobe(transform: int) -> bytes:
    """0: as stored (RGB, CMYK); 1: YCbCr; 2: YCCK."""
    return segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


@dataclass(frozen=True)
class Scan:
    """B.2.3: the numbers of its components, the band of frequencies, bits seen before and to be seen."""

    components: tuple[int, ...]
    first: int = 0
    last: int = 63
    high: int = 0
    low: int = 0
    # The table of each component, for DC and AC alike: one for the first component, one for all others.
    tables: tuple[int, ...] = (0, 1, 1, 1, 1)

    def header(self, frame: Frame) -> bytes:
        payload = bytes((len(self.components),))
        for number in self.components:
            payload += bytes((frame.components[number].identifier, self.tables[number] * 0x11))
        return segment(SOS, payload + bytes((self.first, self.last, self.high << 4 | self.low)))

    def mcus(self, frame: Frame) -> Iterator[Blocks]:
        """Each MCU's, in the order of A.2."""

        def block(number: int, row: int, column: int) -> tuple[int, list[int]]:
            return number, frame.components[number].blocks[row, column].reshape(64)[ZIGZAG].tolist()

        if len(self.components) == 1:
            rows, columns = frame.own(self.components[0])
            for row in range(rows):
                for column in range(columns):
                    yield [block(self.components[0], row, column)]
            return
        rows, columns = frame.mcus
        for row in range(rows):
            for column in range(columns):
                yield [
                    block(number, row * v + y, column * h + x)
                    for number in self.components
                    for h, v in (frame.components[number].factors,)
                    for y in range(v)
                    for x in range(h)
                ]

    def intervals(self, frame: Frame, restart: int) -> Iterator[Blocks]:
        """The blocks between two restart markers."""
        mcus = list(self.mcus(frame))
        for start in range(0, len(mcus), restart or len(mcus)):
            yield [block for mcu in mcus[start : start + (restart or len(mcus))] for block in mcu]


def interleaved(frame: Frame) -> Scan:
    return Scan(tuple(range(len(frame.components))))


def one_by_one(frame: Frame) -> list[Scan]:
    """Not interleaved: a scan for each component."""
    return [Scan((number,)) for number in range(len(frame.components))]


def progressive_scans(frame: Frame) -> list[Scan]:
    """Spectral selection and successive approximation (G.1.1): every kind of scan there is."""
    colours = range(len(frame.components))
    return [
        Scan(tuple(colours), 0, 0, 0, 1),
        *(Scan((number,), 1, 5, 0, 2) for number in colours),
        *(Scan((number,), 6, 63, 0, 2) for number in colours),
        *(Scan((number,), 1, 63, 2, 1) for number in colours),
        Scan(tuple(colours), 0, 0, 1, 0),
        *(Scan((number,), 1, 63, 1, 0) for number in colours),
    ]


@dataclass
class CodedScan:
    """The parts of a scan, for files that lack one of them."""

    tables: bytes
    header: bytes
    intervals: list[bytes]

    def __bytes__(self) -> bytes:
        return self.tables + self.header + joined(self.intervals)


def joined(intervals: Iterable[bytes]) -> bytes:
    """B.2.1: RST0 to RST7 between the intervals, over and over."""
    made = b""
    for number, interval in enumerate(intervals):
        made += (bytes((0xFF, 0xD0 + (number - 1) % 8)) if number else b"") + interval
    return made


def stuffed(data: bytes) -> bytes:
    """F.1.2.3, D.1.6: a byte of ones within coded data is no marker."""
    return data.replace(b"\xff", b"\xff\0")


def shifted(value: int, low: int) -> int:
    """The point transform of AC coefficients (G.1.2.1): towards 0."""
    return value >> low if value >= 0 else -(-value >> low)
