"""Every kernel, compiled for chips that are not here: what the assembler says holds on each of them."""

import pytest

from imagen_fast.kernels import launch

if not launch.INSTALLED or launch.INTERPRETED:
    pytest.skip("compiling needs triton, and not its interpreter", allow_module_level=True)

from imagen_fast.kernels import aot


@pytest.mark.parametrize("chip", aot.CHIPS)
def test_no_kernel_spills_and_products_run_on_matrix_units(chip: int) -> None:
    reports = [aot.compile_for(launched, chip, case) for case, launched in aot.launches(chip)]
    assert len({report.kernel for report in reports}) == 7
    wrong = [report for report in reports if report.spilled or report.shared > aot.SHARED_LIMIT[chip]]
    assert not wrong, "kernels spill or exceed shared memory:\n" + "\n".join(map(str, wrong))
    half = [r for r in reports if r.kernel.startswith("attention") and "float32" not in r.case]
    assert all(r.newest for r in half), "attention without this chip's matrix instructions:\n" + "\n".join(
        str(r) for r in half if not r.newest
    )


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
