"""Every kernel, compiled for chips that are not here: what the assembler says holds on each of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagen_fast.kernels import (
    causal_pixel_attention,
    causal_pixel_softmax,
    launch,
    masked_patch_attention,
)

if not launch.INSTALLED or launch.INTERPRETED:
    pytest.skip("compiling needs triton, and not its interpreter", allow_module_level=True)

import triton

from imagen_fast.kernels import aot
from imagen_fast.kernels.masked_patch_attention_shapes import ASSEMBLED_BY


@pytest.fixture(scope="module")
def compiled() -> list[aot.Report]:
    """For all chips at once: the processes that compile take as long to start as ten kernels."""
    return aot.compile_all(aot.CAPABILITIES)


@pytest.mark.parametrize("chip", aot.CAPABILITIES)
def test_no_kernel_spills_and_products_run_on_matrix_units(compiled, chip: int) -> None:
    reports = [report for report in compiled if report.capability == chip]
    assert len({report.kernel for report in reports}) == 19
    # Assemblers differ: another than the one that chose the shapes may keep a few registers on the stack.
    if not triton.__version__.startswith(f"{ASSEMBLED_BY}."):
        reports = [replace(report, spilled=max(0, report.spilled - 128)) for report in reports]
    wrong = {report: found for report in reports if (found := aot.problems(report))}
    assert not wrong, "\n".join(f"{found}: {report}" for report, found in wrong.items())
    assert {report.half for report in reports if "bfloat16" in report.case and "D=" in report.case} == {True}
    assert all(report.occupancy.programs >= 1 for report in reports)


SOUND = aot.Report(
    kernel="attention_forward",
    case="N=49 D=64 bfloat16",
    capability=90,
    registers=80,
    spilled=0,
    shared=24576,
    matrix=8,
    newest=8,
    warps=4,
    half=True,
    work=None,
)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"half": False, "newest": 0, "matrix": 0}, None),
        ({"spilled": 8}, "spills 8 bytes"),
        ({"shared": 227 * 1024 + 1}, "shared memory"),
        ({"capability": 80, "shared": 200 * 1024}, "shared memory"),
        ({"newest": 0}, "matrix instructions"),
    ],
)
def test_a_spill_or_a_missing_matrix_instruction_is_a_problem(change, problem) -> None:
    found = aot.problems(replace(SOUND, **change))
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_a_kernel_that_must_spill_is_found() -> None:
    """The checker, from the assembler on: a tile that four warps cannot hold."""
    with launch.recording(80) as recorded:
        qkv = torch.empty((2, 256, 3, 2, 128), dtype=torch.bfloat16, device="meta").unbind(2)
        masked_patch_attention.run_forward(*qkv, None, None, None, None, 256, 256, 0.1)
    (launched,) = recorded
    huge = replace(
        launched,
        arguments=launched.arguments | {"BLOCK_M": 128},
        options=launched.options | {"num_warps": 4},
    )
    (report,) = aot.compile_for([("huge", huge)], 80)
    assert any("spills" in problem for problem in aot.problems(report))


@pytest.mark.parametrize("chip", aot.CAPABILITIES)
def test_the_document_tells_of_every_kernel_of_attention(chip: int) -> None:
    with launch.recording(chip) as recorded:
        for module in (masked_patch_attention, causal_pixel_attention, causal_pixel_softmax):
            for _, run in module.aot_launches():
                run()
    table = (Path(__file__).parents[2] / aot.DOCUMENT).read_text()
    told = set(re.findall(rf"^\| (\w+) \|[^|]*\| {chip} \|", table, re.MULTILINE))
    assert told == {one.kernel.fn.__name__ for one in recorded}


def test_specialisation_follows_the_jit() -> None:
    """Alignment and ones decide which code is compiled: they must be what a launch would see."""
    with launch.recording(90) as recorded:
        next(iter(aot.masked_patch_attention.aot_launches()))[1]()
    signature, constants, attributes = aot.specialise(recorded[0].kernel, recorded[0].arguments)
    names = recorded[0].kernel.arg_names
    assert signature["q"] == "*bf16"
    assert constants["q_spans"] is None
    assert constants["blocks"] == 1
    assert signature["heads"] == "i32"
    assert (names.index("q_row"),) in attributes
    assert (names.index("heads"),) not in attributes
