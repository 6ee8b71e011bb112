"""What a chip that is not here would need to run each kernel: registers, spills, shared memory.

Every kernel module lists its launches in ``aot_launches()``; they are recorded from the real
launchers, so that what is compiled here is what runs there. ``python -m imagen_fast.kernels.aot``
prints the table.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from imagen_fast.kernels import masked_patch_attention, masked_pixel_mse
from imagen_fast.kernels.launch import Launch, recording

CHIPS = (80, 90, 100)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}

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


@lru_cache
def _cuobjdump() -> str:
    return str(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")


def _dump(option: str, path: str) -> str:
    return subprocess.run([_cuobjdump(), option, path], capture_output=True, text=True, check=True).stdout


def compile_for(launch: Launch, capability: int, case: str = "") -> Report:
    signature, constants, attributes = specialise(launch.kernel, launch.arguments)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, sass = _dump("-res-usage", file.name), _dump("-sass", file.name)
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Report(
        kernel=launch.kernel.fn.__name__,
        case=case,
        capability=capability,
        registers=used["REG"],
        spilled=used["STACK"] + used["LOCAL"],
        shared=compiled.metadata.shared,
        matrix=len(re.findall(_MATRIX, sass)),
        newest=len(re.findall(_NEWEST.get(capability // 10, r"\bHMMA\b"), sass)),
        warps=launch.options["num_warps"],
    )


def launches(capability: int) -> Iterator[tuple[str, Launch]]:
    """Every launch of every kernel module, as this chip would get it. A kernel met again is not repeated."""
    seen = set()
    for module in (masked_patch_attention, masked_pixel_mse):
        for case, run in module.aot_launches():
            with recording(capability) as recorded:
                run()
            for launch in recorded:
                specialised = specialise(launch.kernel, launch.arguments)
                key = repr((launch.kernel.fn.__name__, specialised, launch.options))
                if key not in seen:
                    seen.add(key)
                    yield case, launch


def main(chips: tuple[int, ...], as_json: bool) -> None:
    reports = [compile_for(launch, chip, case) for chip in chips for case, launch in launches(chip)]
    if as_json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
        return
    table = Table(title="What each chip would need")
    for heading in fields(Report):
        table.add_column(heading.name, justify="left" if heading.type is str else "right")
    for report in reports:
        table.add_row(
            *(str(value) for value in asdict(report).values()), style="red" if report.spilled else None
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile every kernel for chips that are not here.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--chips", type=int, nargs="*", default=CHIPS, help="compute capabilities, 90 for 9.0"
    )
    options = parser.parse_args()
    main(tuple(options.chips), options.json)
