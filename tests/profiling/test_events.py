"""From events to a window: whose time it was, on one thread and on a GPU's streams."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_fast.profiling.events import DATA, WHOLE, Event, _union, _without, read
from imagen_fast.profiling.operations import Call

LARGE = 512  # a product of this side is no small work


def op(name, begin, end, *, thread=1, number=0, recorded=False, shapes=((LARGE, LARGE), (LARGE, LARGE))):
    types, values = ["float"] * len(shapes), [None] * len(shapes)
    call = Call(name, [list(shape) for shape in shapes], types, values)
    return Event(name, begin, end, thread, False, True, number, 0, recorded, call)


def note(name, begin, end, thread=1):
    return Event(name, begin, end, thread, False, False)


def kernel(name, begin, end, launched_by=0, stream=7):
    return Event(name, begin, end, stream, True, False, launched_by=launched_by)


def whole(end=10.0):
    return note(WHOLE, 0.0, end)


def window(*events, steps=1, handing_out=0.0):
    return read([whole(), *events], steps, handing_out)


def test_what_no_operation_took_is_idle():
    made = window(note(DATA, 0, 2), op("aten::mm", 3, 6), op("aten::gelu", 6, 7), op("aten::copy_", 8, 8.5))
    assert made.device == "cpu"
    line = {kind: taken for kind, taken in made.timeline.items() if taken}
    assert line == pytest.approx({"data": 2, "matrix": 3, "memory": 1, "copy": 0.5, "idle": 3.5})
    assert sum(made.timeline.values()) == pytest.approx(made.seconds)


def test_time_belongs_to_the_innermost_operation_that_works():
    made = window(
        op("aten::linear", 0, 4), op("aten::addmm", 1, 3, shapes=((9,), (LARGE, LARGE), (LARGE, LARGE)))
    )
    assert made.timeline["matrix"] == pytest.approx(2)
    assert made.timeline["idle"] == pytest.approx(8)  # what linear itself took only handed the work on


def test_operations_inside_one_that_has_a_formula_are_its_own():
    made = window(op("aten::mm", 0, 4), op("aten::copy_", 1, 2), op("aten::copy_", 5, 6))
    (mm,) = (line for line in made.ops if line.name == "aten::mm")
    (copy,) = (line for line in made.ops if line.name == "aten::copy_")
    assert (mm.seconds, mm.calls) == (pytest.approx(4), 1)
    assert mm.operations == 2 * LARGE**3
    assert (copy.seconds, copy.calls) == (pytest.approx(1), 1)


def test_small_operations_and_the_cost_of_handing_out_are_no_work():
    made = window(op("aten::relu", 0, 1, shapes=((4, 4),)), op("aten::relu", 1, 3), handing_out=0.5)
    assert made.timeline["memory"] == pytest.approx(1.5)
    assert made.timeline["idle"] == pytest.approx(8.5)


def test_operations_that_wait_for_data_are_data():
    made = window(note(DATA, 0, 4), op("aten::stack", 1, 3))
    assert made.timeline["data"] == pytest.approx(4)
    assert made.timeline["memory"] == 0


def test_the_optimisers_operations_are_told_apart():
    made = window(note("Optimizer.step#AdamW.step", 0, 4), op("aten::mul_", 1, 3), op("aten::mul", 5, 6))
    assert made.timeline["optimizer"] == pytest.approx(2)
    assert made.timeline["memory"] == pytest.approx(1)


def test_other_threads_communicate_while_this_one_waits():
    made = window(op("aten::mm", 0, 3), op("gloo:all_reduce", 2, 6, thread=2, shapes=()))
    assert made.timeline["communication"] == pytest.approx(3)
    assert made.timeline["idle"] == pytest.approx(4)


def test_a_forward_pass_inside_a_backward_one_is_made_again():
    backward = note("autograd::engine::evaluate_function: CheckpointBackward", 4, 9)
    made = window(
        op("aten::mm", 0, 2, recorded=True),
        backward,
        op("aten::mm", 5, 6, recorded=True),
        op("aten::mm", 6, 8),
    )
    (mm,) = (line for line in made.ops if line.name == "aten::mm")
    assert mm.calls == 3
    assert mm.operations == 3 * 2 * LARGE**3
    assert mm.model_operations == 2 * 2 * LARGE**3


def test_the_gpus_time_is_divided_by_its_kernels():
    made = window(
        op("aten::mm", 0.0, 0.1, number=11),
        op("aten::gelu", 0.1, 0.2, number=12),
        kernel("gemm", 1, 4, launched_by=11),
        kernel("elementwise", 3, 5, launched_by=12, stream=8),  # beside the product for a second
        kernel("ncclDevKernel_AllReduce", 4.5, 7, stream=9),
        kernel("Memcpy HtoD", 6, 8, stream=10),
        note(DATA, 7.5, 9.5),
        note("cudaStreamSynchronize", 9, 9.5),
    )
    assert made.device == "cuda"
    expected = {
        "matrix": 3,
        "memory": 1,
        "communication": 2,
        "copy": 1,
        "data": 1.5,
        "idle": 1.5,
        "optimizer": 0,
    }
    assert made.timeline == pytest.approx(expected)
    assert (made.launches, made.syncs) == (4, 1)
    (mm,) = (line for line in made.ops if line.name == "aten::mm")
    assert mm.operations == 2 * LARGE**3
    assert mm.seconds == pytest.approx(3)


SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 9)).map(lambda x: (x[0], x[0] + x[1])), max_size=12
)


def covered(spans):
    return {at for begin, end in spans for at in range(begin, end)}


@given(SPANS, SPANS)
def test_spans(some, others):
    union, rest = _union(some), _without(_union(some), _union(others))
    assert covered(union) == covered(some)
    assert covered(rest) == covered(some) - covered(others)
    for spans in (union, rest):
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        assert all(begin < end for begin, end in spans)
