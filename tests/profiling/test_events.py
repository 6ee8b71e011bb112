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
    addmm = op("aten::addmm", 1, 3, shapes=((9,), (LARGE, LARGE), (LARGE, LARGE)))
    made = window(op("aten::linear", 0, 4), addmm, handing_out=0.7)
    assert made.timeline["matrix"] == pytest.approx(1.3)
    assert made.timeline["idle"] == pytest.approx(8.7)  # what linear itself took only handed the work on


def test_what_is_long_works_whatever_is_known_of_it():
    long, short = (op("aten::fft", begin, end, shapes=()) for begin, end in ((0, 5), (6, 7)))
    view = op("aten::view", 7, 9)
    made = window(long, short, view, handing_out=0.5)
    assert made.timeline["memory"] == pytest.approx(4.5)
    assert made.timeline["idle"] == pytest.approx(5.5)


def test_operations_inside_one_that_has_a_formula_are_its_own():
    made = window(op("aten::mm", 0, 4), op("aten::copy_", 1, 2), op("aten::copy_", 5, 6))
    (mm,) = (line for line in made.ops if line.name == "aten::mm")
    (copy,) = (line for line in made.ops if line.name == "aten::copy_")
    assert (mm.seconds, mm.calls) == (pytest.approx(4), 1)
    assert (made.timeline["matrix"], made.timeline["copy"]) == (pytest.approx(4), pytest.approx(1))
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


def test_an_update_that_calls_the_whole_step_is_no_update_alone():
    made = window(
        note("Optimizer.step#LBFGS.step", 0, 9),
        note("autograd::engine::evaluate_function: MulBackward", 1, 5),
        op("aten::copy_", 2, 4),
        op("aten::mul_", 6, 8),
    )
    assert made.timeline["optimizer"] == 0
    assert (made.timeline["copy"], made.timeline["memory"]) == (pytest.approx(2), pytest.approx(2))


def test_loops_of_a_compiler_work():
    region = Event("CompiledFunction", 0, 6, 1, False, True, call=Call("CompiledFunction", [], [], []))
    made = window(region, op("aten::mm", 1, 3), handing_out=0.1)
    assert made.timeline["memory"] == pytest.approx(3.9)
    assert made.timeline["matrix"] == pytest.approx(1.9)


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


def test_for_second_derivatives_nothing_is_made_again():
    backward = note("autograd::engine::evaluate_function: MmBackward0", 4, 9)
    made = window(op("aten::mm", 0, 2, recorded=True), backward, op("aten::mm", 5, 6, recorded=True))
    (mm,) = (line for line in made.ops if line.name == "aten::mm")
    assert mm.operations == mm.model_operations == 2 * 2 * LARGE**3


def test_what_the_host_named_is_no_kernel():
    step = note("Optimizer.step#AdamW.step", 0, 0.5)
    step.note = True
    drawn = kernel("Optimizer.step#AdamW.step", 1, 9)
    other = kernel("train", 0, 10)
    other.note = True
    made = window(step, drawn, other, kernel("elementwise", 2, 3))
    assert (made.timeline["memory"], made.timeline["idle"], made.launches) == (1, 9, 1)


def test_products_that_nothing_counts_are_known_by_their_kernels():
    made = window(kernel("sm90_xmma_gemm_bf16bf16", 0, 4), kernel("triton_poi_fused_add_0", 4, 6))
    assert (made.timeline["matrix"], made.timeline["memory"]) == (4, 2)
    assert all(line.operations is None for line in made.ops)


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
