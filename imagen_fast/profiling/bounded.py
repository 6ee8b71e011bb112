"""Series that never grow past a number of samples, however long they go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Of these the last value counts, of everything else the mean over the time.
_CUMULATIVE = ("energy",)
_DIGITS = 7

Key = tuple[int, str]
"""The place of a GPU, or -1 for the host; and the name of a quantity."""


@dataclass
class _Row:
    """Values that hold for `seconds`, up to `time`."""

    time: float
    seconds: float
    values: dict[Key, float | None]


@dataclass
class Bounded:
    """Rows in order; at `most` (even) of them every two become one, which halves the resolution of all.

    What comes then is gathered until it is as long as the others. A rate's mean over the time of both is the
    rate over both: nothing that was counted is lost.
    """

    most: int = 2048
    _rows: list[_Row] = field(default_factory=list)
    _gathered: list[_Row] = field(default_factory=list)
    _together: int = 1

    @property
    def coarser(self) -> int:
        """How many of the rows that came make one that is kept."""
        return self._together

    def add(
        self, time: float, seconds: float, values: Mapping[Key, float | None], last: bool = False
    ) -> None:
        """A row of what was measured in the `seconds` up to `time`.

        Args:
            last: what is left at the end, which joins the row before if it is much shorter: in a mean over
                the samples, a moment would have the weight of the others.
        """
        row = _Row(time, seconds, dict(values))
        before = self._gathered or self._rows
        if last and before and seconds < before[-1].seconds / 2:
            before[-1] = _merged([before[-1], row])
            return
        self._gathered.append(row)
        if len(self._gathered) < self._together:
            return
        self._rows.append(_merged(self._gathered))
        self._gathered = []
        if len(self._rows) >= self.most:
            pairs = zip(self._rows[::2], self._rows[1::2], strict=True)
            self._rows = [_merged(list(pair)) for pair in pairs]
            self._together *= 2

    def columns(self) -> tuple[list[float], dict[Key, list[float | None]]]:
        """The times, and by key one value for each; the row that is not full yet is the last."""
        rows = [*self._rows, *([_merged(self._gathered)] if self._gathered else [])]
        keys = dict.fromkeys(key for row in rows for key in row.values)
        return (
            [round(row.time, 4) for row in rows],
            {key: [_rounded(row.values.get(key)) for row in rows] for key in keys},
        )


def _merged(rows: list[_Row]) -> _Row:
    seconds = sum(row.seconds for row in rows)
    keys = dict.fromkeys(key for row in rows for key in row.values)
    return _Row(rows[-1].time, seconds, {key: _mean(key, rows) for key in keys})


def _mean(key: Key, rows: list[_Row]) -> float | None:
    known = [(row.seconds, value) for row in rows if (value := row.values.get(key)) is not None]
    if not known:
        return None
    if len(known) == 1 or key[1] in _CUMULATIVE:
        return known[-1][1]
    seconds = sum(each for each, _ in known)
    return sum(each * value for each, value in known) / seconds


def _rounded(value: float | None) -> float | None:
    """To the digits that a measurement can have, which keeps the file small."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
