"""CUDA_VISIBLE_DEVICES, as CUDA reads it."""

from __future__ import annotations

import pytest

from imagen_fast.profiling.visible import choose

UUIDS = ["GPU-aa11", "GPU-aa22", "MIG-bb33", "GPU-cc44"]
SAME = ["H100"] * 4


@pytest.mark.parametrize(
    ("variable", "places"),
    [
        (None, [0, 1, 2, 3]),
        ("0", [0]),
        ("3, 1", [3, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        # CUDA stops at the first that is none.
        ("1,9,0", [1]),
        ("1,x,0", [1]),
        ("GPU-cc44,0", [3, 0]),
        ("GPU-cc", [3]),
        ("GPU-aa", []),  # of two
        ("MIG-bb33", [2]),
        ("1,1", []),
    ],
)
def test_places(variable, places):
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    chosen = choose(UUIDS, SAME, environment)
    assert chosen.places == places
    assert chosen.doubt is None


def test_numbers_among_gpus_that_differ_are_certain_only_in_the_order_of_the_bus():
    names = ["T4", "H100", "H100", "H100"]
    doubtful = choose(UUIDS, names, {"CUDA_VISIBLE_DEVICES": "0"})
    assert doubtful.places == [0, 1, 2, 3]
    assert "CUDA_DEVICE_ORDER" in doubtful.doubt
    ordered = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert choose(UUIDS, names, ordered).places == [0]
    assert choose(UUIDS, names, {"CUDA_VISIBLE_DEVICES": "GPU-cc44"}).doubt is None
