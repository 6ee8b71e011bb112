"""Arithmetic coding of a JPEG's scans: annexes D, F.1.4 and G.1.3 of T.81."""

from __future__ import annotations

from dataclasses import dataclass, field

from jpeg_writer import Blocks, CodedScan, Frame, Scan, segment, shifted, stuffed

DAC = 0xCC
# Table D.3: the probability of the less probable symbol, the next state after it and after the other one;
# where the first has a minus sign, the two symbols change places.
TABLE = """
5a1d,-1,1 2586,14,2 1114,16,3 080b,18,4 03d8,20,5 01da,23,6 00e5,25,7 006f,28,8 0036,30,9 001a,33,10
000d,35,11 0006,9,12 0003,10,13 0001,12,13 5a7f,-15,15 3f25,36,16 2cf2,38,17 207c,39,18 17b9,40,19
1182,42,20 0cef,43,21 09a1,45,22 072f,46,23 055c,48,24 0406,49,25 0303,51,26 0240,52,27 01b1,54,28
0144,56,29 00f5,57,30 00b7,59,31 008a,60,32 0068,62,33 004e,63,34 003b,32,35 002c,33,9 5ae1,-37,37
484c,64,38 3a0d,65,39 2ef1,67,40 261f,68,41 1f33,69,42 19a8,70,43 1518,72,44 1177,73,45 0e74,74,46
0bfb,75,47 09f8,77,48 0861,78,49 0706,79,50 05cd,48,51 04de,50,52 040f,50,53 0363,51,54 02d4,52,55
025c,53,56 01f8,54,57 01a4,55,58 0160,56,59 0125,57,60 00f6,58,61 00cb,59,62 00ab,61,63 008f,61,32
5b12,-65,65 4d04,80,66 412c,81,67 37d8,82,68 2fe8,83,69 293c,84,70 2379,86,71 1edf,87,72 1aa9,87,73
174e,72,74 1424,72,75 119c,74,76 0f6b,74,77 0d51,75,78 0bb6,77,79 0a40,77,48 5832,-80,81 4d1c,88,82
438e,89,83 3bdd,90,84 34ee,91,85 2eae,92,86 299a,93,87 2516,86,71 5570,-88,89 4ca9,95,90 44d9,96,91
3e22,97,92 3824,99,93 32b4,99,94 2e17,93,86 56a8,-95,96 4f46,101,97 47e5,102,98 41cf,103,99
3c3d,104,100 375e,99,93 5231,105,102 4c0f,106,103 4639,107,104 415e,103,99 5627,-105,106
50e7,108,107 4b85,109,103 5597,110,109 504f,111,107 5a10,-110,111 5522,112,109 59eb,-112,111
"""
STATES = tuple(
    (int(probability, 16), abs(int(less)), int(more), less.startswith("-"))
    for probability, less, more in (state.split(",") for state in TABLE.split())
)
DC, AC, SIGN = 0, 1, 2
Bin = tuple[int, int, int]
"""Whose statistics a decision has: DC or AC, the number of the table, and which of its bins."""
EVEN: Bin = (SIGN, 0, 0)  # F.1.4.4.2: a probability that stays a half


@dataclass(frozen=True)
class Conditioning:
    """F.1.4.4.1.4 and F.1.4.4.2: what of the last DC difference is small, and which frequencies are low."""

    lower: int = 0
    upper: int = 1
    low_frequencies: int = 5

    def segment(self) -> bytes:
        """B.2.4.3, for tables 0 and 1."""
        dc, ac = self.upper << 4 | self.lower, self.low_frequencies
        return segment(DAC, bytes((0x00, dc, 0x01, dc, 0x10, ac, 0x11, ac)))


@dataclass
class Coder:
    """D.1. The code register is a number of any length, in which a carry finds its way by itself."""

    interval: int = 0x10000
    code: int = 0
    shifts: int = 0
    states: dict[Bin, tuple[int, int]] = field(default_factory=dict)

    def put(self, bin: Bin, decision: bool) -> None:
        state, likely = self.states.get(bin, (0, 0))
        qe, after_less, after_more, exchange = STATES[state]
        expected = decision == likely
        self.interval -= qe
        # D.1.4: the larger part is the expected symbol's, whatever the estimate says.
        if expected and self.interval >= 0x8000:
            return
        if expected == (self.interval < qe):
            self.code += self.interval
            self.interval = qe
        if bin != EVEN:
            other = 1 - likely if exchange else likely
            self.states[bin] = (after_more, likely) if expected else (after_less, other)
        while self.interval < 0x8000:
            self.interval <<= 1
            self.code <<= 1
            self.shifts += 1

    def put_size(self, bins: list[Bin], size: int) -> None:
        """F.1.4.3, of |value| - 1: how many bits it has, a decision each, and the bits after the first."""
        length = size.bit_length()
        for bin in bins[:length]:
            self.put(bin, True)
        self.put(bins[length], False)
        kind, table, last = bins[length]
        for place in reversed(range(length - 1)):
            self.put((kind, table, last + 14), bool(size >> place & 1))

    def end(self) -> bytes:
        """D.1.8: the number of the interval that has the most zeros at its end, and these are left out."""
        found = self.code + self.interval - 1 & ~0xFFFF
        if found < self.code:
            found += 0x8000
        bits = self.shifts + 16
        return stuffed((found << -bits % 8).to_bytes((bits + 7) // 8, "big").rstrip(b"\0"))


def put_dc(coder: Coder, table: int, difference: int, context: int, conditioning: Conditioning) -> int:
    """F.1.4.1; returns the context of the next difference (tables F.4 and F.5)."""
    coder.put((DC, table, context), difference != 0)
    if not difference:
        return 0
    negative = difference < 0
    coder.put((DC, table, context + 1), negative)
    size = abs(difference) - 1
    unary = [context + 2 + negative, *range(20, 34)]
    coder.put_size([(DC, table, bin) for bin in unary], size)
    highest = 1 << size.bit_length() >> 1
    if highest < 1 << conditioning.lower >> 1:
        return 0
    return 4 + 4 * negative + 8 * (highest > 1 << conditioning.upper >> 1)


def put_ac(coder: Coder, table: int, scan: Scan, zigzag: list[int], conditioning: Conditioning) -> None:
    """F.1.4.2; in a scan that refines, G.1.3.3."""
    values = [shifted(value, scan.low) for value in zigzag]
    k = max(scan.first, 1)
    last = max((i for i in range(k, scan.last + 1) if values[i]), default=0)
    # Up to here the decoder knows that the block has not ended.
    known = max((i for i in range(k, scan.last + 1) if scan.high and abs(values[i]) > 1), default=0)
    while k <= last:
        if k > known:
            coder.put((AC, table, 3 * k - 3), False)
        while not values[k]:
            coder.put((AC, table, 3 * k - 2), False)
            k += 1
        value, first = values[k], (AC, table, 3 * k - 1)
        if scan.high and abs(value) > 1:
            coder.put(first, bool(value & 1))
        else:
            coder.put((AC, table, 3 * k - 2), True)
            coder.put(EVEN, value < 0)
            if not scan.high:
                further = 189 if k <= conditioning.low_frequencies else 217
                unary = [(AC, table, bin) for bin in range(further, further + 14)]
                coder.put_size([first, first, *unary], abs(value) - 1)
        k += 1
    if k <= scan.last:
        coder.put((AC, table, 3 * k - 3), True)


def put_blocks(scan: Scan, blocks: Blocks, conditioning: Conditioning) -> bytes:
    coder = Coder()
    before: dict[int, tuple[int, int]] = {}
    for number, zigzag in blocks:
        table = scan.tables[number]
        if scan.first == 0:
            value = zigzag[0] >> scan.low
            if scan.high:
                coder.put(EVEN, bool(value & 1))
            else:
                predicted, context = before.get(number, (0, 0))
                before[number] = value, put_dc(coder, table, value - predicted, context, conditioning)
        if scan.last:
            put_ac(coder, table, scan, zigzag, conditioning)
    return coder.end()


def arithmetic_scan(
    frame: Frame, scan: Scan, restart: int = 0, conditioning: Conditioning | None = None
) -> CodedScan:
    given = conditioning or Conditioning()
    intervals = [put_blocks(scan, blocks, given) for blocks in scan.intervals(frame, restart)]
    return CodedScan(given.segment() if conditioning else b"", scan.header(frame), intervals)
