"""What limits each operation, and what was measured of it: `python -m imagen_fast.benchmarks.operations`.

Writes the tables of docs/operations.md: least times from the work of the Triton launches and the chips'
peaks, which needs no GPU, and the times of benchmarks/results.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from imagen_fast.benchmarks import record, report
from imagen_fast.figures import put_into
from imagen_fast.kernels.aot import products_in_half
from imagen_fast.kernels.chips import CHIPS
from imagen_fast.kernels.cost import Work, least_time, work
from imagen_fast.kernels.launch import Launch, recording

DOCUMENT = Path("docs/operations.md")
RESULTS = Path("benchmarks/results")
CAPABILITY = 90  # the work is the same on each


@dataclass(frozen=True)
class Shown:
    """What the page has of an operation.

    Args:
        launches: cases of its kernel module's `aot_launches`.
        results: the record with its measurements; None: nothing measures it alone.
        cases: of that record.
    """

    launches: tuple[str, ...]
    results: str | None = None
    cases: tuple[str, ...] = ()


SHOWN = {
    "masked_patch_attention": Shown(
        ("N=49 D=64 bfloat16", "N=197 D=64 bfloat16", "N=1024 D=64 bfloat16"),
        "attention-cpu",
        (
            "attention in-place visible-rows B16 N197 H12 D64 hidden75% bf16 forward+backward",
            "attention packed B16 N49 H12 D64 bf16 forward+backward",
            "attention packed B512 N20-80 H6 D64 bf16 forward+backward",
            "attention cross B16 M147 N50 H16 D32 bf16 forward+backward",
        ),
    ),
    "masked_pixel_mse": Shown(("P=16 index bfloat16",)),
    "causal_pixel_attention": Shown(
        ("Raster 32x32 D=64 bfloat16", "Quadrant 32x32 D=64 bfloat16"),
        "pixels-cpu",
        (
            "causal attention raster 32x32 B4 H8 D64 bf16 forward+backward",
            "causal attention quadrant 32x32 B4 H8 D64 bf16 forward+backward",
            "causal attention neighbourhood3 32x32 B4 H8 D64 bf16 forward+backward",
        ),
    ),
    "causal_pixel_softmax": Shown(("Quadrant 32x32 bfloat16",)),
    "pixel_cross_entropy": Shown(
        ("V=256 E=64 bfloat16",),
        "pixels-cpu",
        (
            "pixel cross-entropy M65536 E64 V256 bf16 forward+backward",
            "pixel cross-entropy M65536 E512 V512 bf16 forward+backward",
        ),
    ),
    "pixel_logistic_mixture": Shown(("K=10 E=64 bfloat16",)),
}


def bound(name: str) -> str:
    """The table of least times: a row a launch."""
    heads = ["case", "kernel", "MB", "GFLOP", "exp, 1e9", *(f"{chip.name}, µs" for chip in CHIPS)]
    rows = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    cases = dict(importlib.import_module(f"imagen_fast.kernels.{name}").aot_launches())
    for case in SHOWN[name].launches:
        with recording(CAPABILITY) as recorded:
            cases[case]()
        # A case that is launched again for another reduction asks for nothing new.
        done = {launch.kernel.fn.__name__: launch for launch in reversed(recorded)}
        rows += [_row(case, launch) for launch in reversed(done.values())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(case: str, launch: Launch) -> list[str]:
    asked = work(launch)
    assert asked is not None, "a case of the page has work that is known beforehand"
    times = (least_time(asked, chip, products_in_half(launch)) for chip in CHIPS)
    given = launch.arguments
    size = (
        f"H={given['heads']} " if "heads" in given else f"M={given['rows']:,} " if "hidden" in given else ""
    )
    least = (f"{_number(seconds * 1e6)} ({what})" for seconds, what in times)
    return [size + case, launch.kernel.fn.__name__, *_amounts(asked), *least]


def _amounts(asked: Work) -> list[str]:
    return [_number(x) for x in (asked.bytes / 1e6, asked.operations / 1e9, asked.exponentials / 1e9)]


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


def measured(name: str, results: Path = RESULTS) -> str:
    """The times of the cases shown, beside the peers'."""
    shown = SHOWN[name]
    whole = record.read(results / f"{shown.results}.json")
    chosen = {key: [x for x in whole[key] if x["case"] in shown.cases] for key in ("results", "ratios")}
    return report.markdown({**whole, **chosen, "absent": []})


def main(document: Path = DOCUMENT) -> None:
    for name, shown in SHOWN.items():
        put_into(document, f"{name}-bound", bound(name))
        if shown.results is not None:
            put_into(document, f"{name}-measured", measured(name))


if __name__ == "__main__":
    main()
