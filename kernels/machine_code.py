"""What NVIDIA's tools, which come with Triton, say about compiled kernels."""

import re
import struct
import subprocess
import tempfile
from pathlib import Path

import triton

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_INSTRUCTION = 16  # bytes, since sm_70


def _run(tool: str, *options: str, content: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        command = [_TOOLS / tool, *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers a thread; bytes of stack and local memory a thread."""
    told = _run("cuobjdump", "-res-usage", content=cubin)
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return used["REG"], used["STACK"] + used["LOCAL"]


def instructions(cubins: list[bytes], capability: int) -> list[list[str]]:
    """The assembly of each.

    By one run of the disassembler, which takes 0.3 s to start and 0.02 s for a kernel.
    """
    codes = [_code(cubin) for cubin in cubins]
    chip = f"SM{capability}{'a' if capability >= 90 else ''}"
    told = _run("nvdisasm", "--binary", chip, content=b"".join(codes))
    lines = re.findall(r"^\s*/\*[0-9a-f]+\*/(.*);", told, re.MULTILINE)
    assert len(lines) * _INSTRUCTION == sum(map(len, codes)), "the disassembler left instructions out"
    rest = iter(lines)
    return [[next(rest) for _ in range(0, len(code), _INSTRUCTION)] for code in codes]


def _code(elf: bytes) -> bytes:
    """The sections with instructions, out of the table of sections of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, of_names = struct.unpack_from("<3H", elf, 0x3A)
    sections = [struct.unpack_from("<2I4Q", elf, table + size * number) for number in range(count)]
    names = sections[of_names][4]
    return b"".join(
        elf[start : start + length]
        for name, _, _, _, start, length in sections
        if elf.startswith(b".text.", names + name)
    )
