"""Whether freed memory stays with the process: counted in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from imagen_fast import native

# Blocks of the size of activations, of which glibc maps some one by one, and trims the others from its heap.
PROGRAM = """
import resource, torch
from imagen_fast import native
if {keep}:
    assert native.keep_freed_memory()
def step():
    held = [torch.ones(size << 18) for size in (1, 8, 64, 8)]
    del held
for _ in range(6):  # until the blocks have found their places
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    made = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return int(made.stdout)


@pytest.mark.skipif(
    not native.available() or platform.libc_ver()[0] != "glibc", reason="needs the native module and glibc"
)
def test_a_step_finds_the_pages_of_those_before():
    assert faults(keep=True) < 100 < 10_000 < faults(keep=False)
