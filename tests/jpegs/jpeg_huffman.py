"""Huffman coding of a JPEG's scans (annexes C, F.1.2, G.1.2 and H of T.81), and whole files of it.

What `plain` wrote are the blocks of its frame, each of them:

    frame = random_frame(40, 30, ((2, 2), (1, 1), (1, 1)))
    data = plain(frame, codes=long_codes, restart=3)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jpeg_writer import (
    DHT,
    EOI,
    SOF_BASELINE,
    SOI,
    Blocks,
    CodedScan,
    Frame,
    Scan,
    interleaved,
    quantisation,
    restart_interval,
    segment,
    shifted,
    start_of_frame,
    stuffed,
)

Code = tuple[tuple[int, int] | None, int, int, int]
"""Table (0 for DC or 1 for AC, number) and symbol, then a number and how many bits of it follow. Without a
table there is no symbol."""
Lengths = dict[int, int]
"""How many bits the code of a symbol has."""


def flat_codes(symbols: Counter[int]) -> Lengths:
    """All of the same length; the code of ones alone stays free, as C asks for."""
    return dict.fromkeys(sorted(symbols), max(1, len(symbols).bit_length()))


def long_codes(symbols: Counter[int]) -> Lengths:
    """The rarer ones of 16 bits: as many as there can be."""
    ranked = [symbol for symbol, _ in symbols.most_common()]
    return {symbol: number + 1 if number < 7 else 16 for number, symbol in enumerate(ranked)}


def longest_codes(symbols: Counter[int]) -> Lengths:
    """Every one of 16 bits, whatever it costs."""
    return dict.fromkeys(sorted(symbols), 16)


Codes = Callable[[Counter[int]], Lengths]


def huffman_table(kind: int, number: int, lengths: Lengths) -> bytes:
    """B.2.4.2."""
    counts = Counter(lengths.values())
    payload = bytes((kind << 4 | number, *(counts[length] for length in range(1, 17))))
    return segment(DHT, payload + bytes(sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))))


def code_words(lengths: Lengths) -> dict[int, str]:
    """C.2: in order of length, one more each time."""
    words, word, before = {}, 0, 0
    for symbol in sorted(lengths, key=lambda symbol: (lengths[symbol], symbol)):
        word <<= lengths[symbol] - before
        before = lengths[symbol]
        words[symbol] = f"{word:0{before}b}"
        word += 1
    return words


def magnitude(value: int) -> tuple[int, int]:
    """F.1.2.1: the category, and the bits that tell a value from others of it."""
    size = abs(value).bit_length()
    return size, value if value > 0 else value + (1 << size) - 1


def dc_code(table: int, difference: int) -> Code:
    size, bits = magnitude(difference)
    return (0, table), size, bits, size


def ac_codes(table: int, band: list[int]) -> Iterator[Code]:
    """F.1.2.2, without the end of the block: nothing follows the last one that is not 0."""
    run = 0
    for value in band:
        if not value:
            run += 1
            continue
        for _ in range(run // 16):
            yield (1, table), 0xF0, 0, 0
        size, bits = magnitude(value)
        yield (1, table), run % 16 << 4 | size, bits, size
        run = 0


def sequential_codes(scan: Scan, blocks: Blocks) -> Iterator[Code]:
    before: Counter[int] = Counter()
    for number, zigzag in blocks:
        table = scan.tables[number]
        yield dc_code(table, zigzag[0] - before[number])
        before[number] = zigzag[0]
        yield from ac_codes(table, zigzag[1:])
        if not zigzag[63]:
            yield (1, table), 0x00, 0, 0


def progressive_codes(scan: Scan, blocks: Blocks) -> Iterator[Code]:
    if scan.first == 0:
        before: Counter[int] = Counter()
        for number, zigzag in blocks:
            value = zigzag[0] >> scan.low
            if scan.high:
                yield None, 0, value & 1, 1
            else:
                yield dc_code(scan.tables[number], value - before[number])
                before[number] = value
        return
    table, band, refine = scan.tables[scan.components[0]], slice(scan.first, scan.last + 1), scan.high > 0
    run, corrections = 0, []

    def end_of_bands() -> Iterator[Code]:
        """G.1.2.2: of so many blocks nothing more comes, but for their corrections."""
        nonlocal run, corrections
        if run:
            size = run.bit_length() - 1
            yield (1, table), size << 4, run - (1 << size), size
        yield from corrections
        run, corrections = 0, []

    for _, zigzag in blocks:
        values = [shifted(value, scan.low) for value in zigzag[band]]
        if refine:
            # What is new in this bit (G.1.2.3); the others are only corrected.
            new = [value if abs(value) == 1 else 0 for value in values]
            codes, rest = refined(table, values, max((k for k, value in enumerate(new) if value), default=-1))
        else:
            codes, rest = list(ac_codes(table, values)), []
            new = values
        if codes:
            yield from end_of_bands()
            yield from codes
        if not new[-1]:
            run += 1
            corrections += rest
        if run == 0x7FFF:
            yield from end_of_bands()
    yield from end_of_bands()


def refined(table: int, values: list[int], last: int) -> tuple[list[Code], list[Code]]:
    """G.1.2.3: the codes as far as the last new coefficient, and the corrections after it."""
    codes: list[Code] = []
    corrections: list[Code] = []
    run = 0
    for k, value in enumerate(values):
        if run == 16 and k <= last:
            codes += [((1, table), 0xF0, 0, 0), *corrections]
            run, corrections = 0, []
        if not value:
            run += 1
        elif abs(value) > 1:
            corrections.append((None, 0, abs(value) & 1, 1))
        else:
            codes += [((1, table), run << 4 | 1, value > 0, 1), *corrections]
            run, corrections = 0, []
    return codes, corrections


def packed(codes: Iterable[Code], words: dict[tuple[int, int], dict[int, str]]) -> bytes:
    bits = "".join(
        (words[table][symbol] if table else "") + (f"{value:0{length}b}" if length else "")
        for table, symbol, value, length in codes
    )
    bits += "1" * (-len(bits) % 8)
    return stuffed(int(bits, 2).to_bytes(len(bits) // 8, "big")) if bits else b""


def huffman_scan(frame: Frame, scan: Scan, codes: Codes = flat_codes, restart: int = 0) -> CodedScan:
    """With tables of the symbols that occur in it."""
    emit = sequential_codes if (scan.first, scan.last) == (0, 63) else progressive_codes
    emitted = [list(emit(scan, blocks)) for blocks in scan.intervals(frame, restart)]
    return coded(scan.header(frame), emitted, codes)


def coded(header: bytes, intervals: list[list[Code]], codes: Codes) -> CodedScan:
    used: dict[tuple[int, int], Counter[int]] = {}
    for table, symbol, _, _ in (code for interval in intervals for code in interval):
        if table:
            used.setdefault(table, Counter())[symbol] += 1
    lengths = {table: codes(used[table]) for table in sorted(used)}
    words = {table: code_words(given) for table, given in lengths.items()}
    tables = b"".join(huffman_table(*table, given) for table, given in lengths.items())
    return CodedScan(tables, header, [packed(interval, words) for interval in intervals])


def lossless_scan(frame: Frame, samples: np.ndarray) -> CodedScan:
    """Annex H, of one component: each sample from its neighbour (predictor 1). `samples` int [H, W]."""
    before = np.roll(samples, 1, 1)
    before[1:, 0], before[0, 0] = samples[:-1, 0], 1 << frame.precision - 1
    emitted = [dc_code(0, int(difference)) for difference in (samples - before).reshape(-1)]
    return coded(Scan((0,), 1, 0).header(frame), [emitted], flat_codes)


def plain(
    frame: Frame,
    *,
    marker: int = SOF_BASELINE,
    scans: list[Scan] | None = None,
    codes: Codes = flat_codes,
    restart: int = 0,
    steps: int | dict[int, np.ndarray | int] = 4,
    wide: bool = False,
    before: bytes = b"",
) -> bytes:
    """A whole file, every segment in its place.

    Args:
        frame: what is written.
        marker: of the process.
        scans: one, of all components, unless given.
        codes: the lengths of the codes of the symbols that occur.
        restart: MCUs between two restart markers; 0: no such markers.
        steps: quantisation tables by number, or one value for all.
        wide: tables of 16 bits.
        before: segments that come first.
    """
    tables = steps if isinstance(steps, dict) else dict.fromkeys((c.table for c in frame.components), steps)
    parts = [SOI, before, quantisation(tables, wide), start_of_frame(frame, marker)]
    if restart:
        parts.append(restart_interval(restart))
    scans = [interleaved(frame)] if scans is None else scans
    parts += [bytes(huffman_scan(frame, scan, codes, restart)) for scan in scans]
    return b"".join([*parts, EOI])
