"""What a chip that is not here would need to run each kernel: registers, spills, shared memory.

Every kernel module lists its launches in ``aot_launches()``; they are recorded from the real
launchers, so that what is compiled here is what runs there. ``python -m imagen_fast.kernels.aot``
prints the table, with what ``cost.py`` and ``chips.py`` derive; ``--markdown`` writes it into the docs.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from imagen_fast.figures import put_into
from imagen_fast.kernels import (
    causal_pixel_attention,
    causal_pixel_softmax,
    masked_patch_attention,
    masked_pixel_mse,
    pixel_cross_entropy,
    pixel_logistic_mixture,
)
from imagen_fast.kernels.chips import CHIPS, MULTIPROCESSORS, Occupancy, occupancy
from imagen_fast.kernels.cost import IMAGES, Work, least_time, work
from imagen_fast.kernels.launch import Launch, recording
from imagen_fast.kernels.machine_code import instructions, usage

CAPABILITIES = tuple(MULTIPROCESSORS)
DOCUMENT = Path("docs/attention-kernels.md")

# Matrix instructions by generation. The newer ones need tiles of 64 rows; smaller products fall back to HMMA.
_MATRIX = r"\b(?:HMMA|HGMMA|UTC\w*MMA)\b"
_NEWEST = {9: r"\bHGMMA\b", 10: r"\bUTC\w*MMA\b", 11: r"\bUTC\w*MMA\b"}
_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.float64: "*fp64",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Report:
    """What the assembler says about one kernel on one chip."""

    kernel: str
    case: str
    capability: int
    registers: int
    spilled: int  # bytes of stack and local memory a thread
    shared: int  # bytes a program
    matrix: int  # matrix instructions of any generation
    newest: int  # those of the chip's own generation
    warps: int
    half: bool  # products of half types, which are meant for matrix instructions
    work: Work | None

    @property
    def occupancy(self) -> Occupancy:
        return occupancy(self.registers, self.warps, self.shared, self.capability)


def specialise(kernel: Any, arguments: dict[str, Any]) -> tuple[dict, dict, dict]:
    """Signature, constants and attributes, as the JIT would take them from these arguments."""
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        name = parameter.name
        value = arguments[name]
        # The JIT compiles None, and an integer of 1, into the kernel.
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            attributes[(position,)] = [["tt.divisibility", 16]]  # PyTorch's allocations are aligned
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(position,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def compile_for(launches: list[tuple[str, Launch]], capability: int) -> list[Report]:
    """A report for each (case, launch)."""
    compiled = [_compiled(launch, capability) for _, launch in launches]
    assemblies = instructions([one.asm["cubin"] for one in compiled], capability)
    reports = []
    for (case, launch), one, assembly in zip(launches, compiled, assemblies, strict=True):
        registers, spilled = usage(one.asm["cubin"])
        report = Report(
            kernel=launch.kernel.fn.__name__,
            case=case,
            capability=capability,
            registers=registers,
            spilled=spilled,
            shared=one.metadata.shared,
            matrix=_count(_MATRIX, assembly),
            newest=_count(_NEWEST.get(capability // 10, r"\bHMMA\b"), assembly),
            warps=launch.options["num_warps"],
            half=products_in_half(launch),
            work=work(launch),
        )
        reports.append(report)
    return reports


def _compiled(launch: Launch, capability: int) -> Any:
    signature, constants, attributes = specialise(launch.kernel, launch.arguments)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


def _count(pattern: str, assembly: list[str]) -> int:
    return sum(re.search(pattern, line) is not None for line in assembly)


def products_in_half(launch: Launch) -> bool:
    """Whether the kernel multiplies tiles of ``q``, or of ``hidden`` and a weight, and in a half type."""
    given = launch.arguments
    left = given["q"] if "q" in given else given["hidden"] if "weight" in given else None
    return left is not None and left.dtype != torch.float32


def problems(report: Report) -> list[str]:
    """What is wrong with a kernel on a chip, in words."""
    limit = MULTIPROCESSORS[report.capability].shared_of_one
    found = {
        f"spills {report.spilled} bytes a thread": report.spilled > 0,
        f"wants {report.shared} bytes of shared memory where {limit} are": report.shared > limit,
        "has none of the chip's own matrix instructions": report.half and report.newest == 0,
    }
    return [problem for problem, there in found.items() if there]


def launches(capability: int) -> Iterator[tuple[str, Launch]]:
    """Every launch of every kernel module, as this chip would get it. A kernel met again is not repeated."""
    seen = set()
    modules = (
        *(masked_patch_attention, masked_pixel_mse, causal_pixel_attention, causal_pixel_softmax),
        *(pixel_cross_entropy, pixel_logistic_mixture),
    )
    for module in modules:
        for case, run in module.aot_launches():
            with recording(capability) as recorded:
                run()
            for launch in recorded:
                specialised = specialise(launch.kernel, launch.arguments)
                key = repr((launch.kernel.fn.__name__, specialised, launch.options))
                if key not in seen:
                    seen.add(key)
                    yield case, launch


def compile_all(capabilities: tuple[int, ...]) -> list[Report]:
    """A report for each launch on each chip, in their order; every processor compiles its share."""
    parts = os.cpu_count() or 1
    shares = [(capability, part, parts) for capability in capabilities for part in range(parts)]
    with ProcessPoolExecutor(parts, get_context("spawn")) as pool:
        numbered = [report for share in pool.map(_compile_share, shares) for report in share]
    numbered.sort(key=lambda pair: (capabilities.index(pair[1].capability), pair[0]))
    return [report for _, report in numbered]


def _compile_share(share: tuple[int, int, int]) -> list[tuple[int, Report]]:
    capability, first, step = share
    own = list(islice(enumerate(launches(capability)), first, None, step))
    reports = compile_for([named for _, named in own], capability)
    return [(number, report) for (number, _), report in zip(own, reports, strict=True)]


HEADINGS = (
    *("kernel", "case", "sm", "warps", "registers", "shared, KB", "programs (warps) an SM", "limited by"),
    *("matrix", "own", "MB", "GFLOP", "exp, 1e9", "least time, us"),
)


def row(report: Report) -> tuple[str, ...]:
    """One line of the table; empty where only tables on the device say how many rows take part."""
    fit, done = report.occupancy, report.work
    costs: tuple[str, ...] = ("",) * 4
    if done is not None:
        chips = [chip for chip in CHIPS if chip.capability == report.capability]
        least = ((chip.name, *least_time(done, chip, report.half)) for chip in chips)
        times = "; ".join(f"{name} {seconds * 1e6:.0f} ({what})" for name, seconds, what in least)
        amounts = (done.bytes / 1e6, done.operations / 1e9, done.exponentials / 1e9)
        costs = (*(f"{x:,.0f}" if x >= 100 else f"{x:.2g}" for x in amounts), times)
    measured = (report.capability, report.warps, report.registers, f"{report.shared / 1024:.0f}")
    holds = (f"{fit.programs} ({fit.warps})", fit.limit, report.matrix, report.newest)
    return (report.kernel, report.case, *(str(value) for value in (*measured, *holds)), *costs)


def markdown(reports: list[Report]) -> str:
    """The table, and where the peaks come from."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(row, reports)]
    peaks = [
        f"{chip.name}: {chip.bandwidth / 1e12:g} TB/s, {chip.half / 1e12:g} TFLOP/s in half types, "
        f"{chip.single / 1e12:g} in fp32, {chip.exponentials / 1e12:.2f}e12 exponentials/s ({chip.source})."
        for chip in CHIPS
    ]
    about = f"Work of {IMAGES} images; Triton {triton.__version__}. Peaks, from which the least times come:"
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", about, *peaks])


def _in_document(report: Report) -> bool:
    """Attention's kernels, causal ones too; of those with options, both at once at the commonest width."""
    optional = any(option in report.case for option in ("rotary", "bias", "lse"))
    both = "rotary bias" in report.case and "D=64 bfloat16" in report.case
    return report.kernel.startswith(("attention", "causal")) and (both or not optional)


def show(reports: list[Report]) -> None:
    table = Table(title=f"What each chip would need; work of {IMAGES} images")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for report in reports:
        table.add_row(*row(report), style="red" if problems(report) else None)
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(table)
    for report in reports:
        for problem in problems(report):
            console.print(f"{report.kernel}, {report.case}, sm_{report.capability}: {problem}", style="red")


def main(capabilities: tuple[int, ...], as_json: bool, document: Path | None) -> int:
    reports = compile_all(capabilities)
    if as_json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
    elif document is not None:
        put_into(document, document.stem, markdown([report for report in reports if _in_document(report)]))
    else:
        show(reports)
    return 1 if any(map(problems, reports)) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile every kernel for chips that are not here.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--chips", type=int, nargs="*", default=CAPABILITIES, help="compute capabilities, 90 for 9.0"
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=DOCUMENT,
        help=f"put the attention kernels' table into {DOCUMENT}",
    )
    options = parser.parse_args()
    sys.exit(main(tuple(options.chips), options.json, options.markdown))
