"""What holds for masked-patch attention whatever the shape, mask, strides and type, in every back-end.

Bits are compared, not values. The Triton kernels take part in the interpreter's run (tests/kernels/
test_interpreter.py), on few and tiny examples, and on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from imagen_fast import native, ops
from imagen_fast.kernels import launch
from imagen_fast.ops import Visible
from imagen_fast.ops.cpu import masked_patch_attention as cpu

HALF = (torch.bfloat16, torch.float16)
ROUNDINGS = 8  # of the largest value
POISONS = (float("nan"), float("inf"), -float("inf"), 1e4, "flipped")


@dataclass(frozen=True)
class BackEnd:
    """One way through the operation, and what of it an example may ask.

    Args:
        way: of the `cpu` back-end: every call goes it.
        repeats: how often a call is made again.
    """

    name: str
    way: str | None = None
    device: str = "cpu"
    dtypes: tuple[torch.dtype, ...] = (torch.float32, *HALF)
    widths: tuple[int, ...] = (2, 32, 33, 64, 72)
    most_tokens: int = 70
    examples: int = 50
    repeats: int = 100

    @property
    def ours(self) -> bool:
        """Not PyTorch's products, whose bits depend on strides and on alignment."""
        return self.name == "triton" or self.way == "native"

    def outcome(self, tensors: list[Tensor], d_out: Tensor, context: Visible | None) -> list[Tensor]:
        """The output and the gradients of q, k and v."""
        leaves = [x.detach().requires_grad_() for x in tensors]
        forced = patch.object(cpu, "plan", lambda *_: self.way) if self.way else nullcontext()
        with forced:
            out = ops.masked_patch_attention(*leaves, context, backend=self.name)
            return [out.detach(), *torch.autograd.grad(out, leaves, d_out, materialize_grads=True)]


@dataclass(frozen=True)
class Example:
    """A batch on the full grid. `shown` has a bit for each token of each image; `layout` is in memory."""

    tokens: int
    heads: int
    width: int
    dtype: torch.dtype
    layout: str
    shown: tuple[int, ...]
    seed: int

    @property
    def seen(self) -> Tensor:
        """[B, N] bool."""
        return torch.tensor([[bits >> n & 1 for n in range(self.tokens)] for bits in self.shown]).bool()

    def tensors(self, device: str) -> list[Tensor]:
        """q, k, v [B, N, H, D]; the same values at every call, in memory of their own."""
        draw = torch.Generator().manual_seed(self.seed)
        images, n, h, d = len(self.shown), self.tokens, self.heads, self.width
        if self.layout == "fused":
            qkv = torch.randn(images, n, 3, h, d, generator=draw).to(device, self.dtype).unbind(2)
        elif self.layout == "heads first":
            qkv = torch.randn(3, images, h, n, d, generator=draw).to(device, self.dtype).transpose(2, 3)
        else:
            wide = torch.randn(3, images, 2 * n, h, d + 6, generator=draw).to(device, self.dtype)
            qkv = wide[:, :, ::2, :, 4 : d + 4]
        return list(qkv)

    def d_out(self, device: str) -> Tensor:
        shape = (len(self.shown), self.tokens, self.heads, self.width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed + 1)).to(
            device, self.dtype
        )


@st.composite
def examples(draw: st.DrawFn, back_end: BackEnd) -> Example:
    tokens = draw(st.integers(1, back_end.most_tokens))
    everything = 2**tokens - 1
    one_image = st.sampled_from([0, everything]) | st.integers(0, everything)
    return Example(
        tokens,
        heads=draw(st.integers(1, 3)),
        width=draw(st.sampled_from(back_end.widths)),
        dtype=draw(st.sampled_from(back_end.dtypes)),
        layout=draw(st.sampled_from(["fused", "heads first", "sliced"])),
        shown=tuple(draw(st.lists(one_image, min_size=1, max_size=4))),
        seed=draw(st.integers(0, 9)),
    )


INSTRUCTION_SETS = ("avx512_bf16", "avx512", "avx2", "portable")
NATIVE = BackEnd("cpu", "native", dtypes=(torch.float32, torch.bfloat16), widths=(2, 32, 64, 72, 80))
BACK_ENDS = {
    "reference": BackEnd("reference"),
    **dict.fromkeys(INSTRUCTION_SETS, NATIVE),
    "products": BackEnd("cpu", "products"),
    "flash": BackEnd("cpu", "flash"),
    # Its bfloat16 products are wrong.
    "interpreter": BackEnd(
        "triton",
        dtypes=(torch.float32, torch.float16),
        widths=(16, 33),
        most_tokens=20,
        examples=4,
        repeats=3,
    ),
    "gpu": BackEnd("triton", device="cuda", most_tokens=300),
}


@contextmanager
def instructions(name: str) -> Iterator[None]:
    """The native kernels as they are on a processor with these."""
    if not native.available():
        pytest.skip(native.unavailable_because())
    best = native.build_info()["instruction_set"]
    try:
        native.use_instruction_set(name)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        native.use_instruction_set(best)


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.gpu if n == "gpu" else ()) for n in BACK_ENDS])
def back_end(request: pytest.FixtureRequest) -> Iterator[BackEnd]:
    name = request.param
    if (name == "interpreter") != launch.INTERPRETED:
        pytest.skip("the interpreter's run is for the interpreter, and the other way round")
    if name == "gpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with instructions(name) if name in INSTRUCTION_SETS else nullcontext():
        yield BACK_ENDS[name]


def for_all(back_end: BackEnd, *more: st.SearchStrategy, examples_of: int | None = None) -> Callable:
    """Run the decorated property on examples for the back-end, the same ones every time."""

    def run(holds: Callable) -> None:
        limits = settings(
            max_examples=examples_of or back_end.examples,
            derandomize=True,
            database=None,
            # Shrinking takes minutes; the examples are small as they are.
            phases=(Phase.explicit, Phase.generate),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        limits(given(examples(back_end), *more)(holds))()

    return run


def assert_same_bits(one: list[Tensor], other: list[Tensor]) -> None:
    for name, a, b in zip(("out", "dq", "dk", "dv"), one, other, strict=True):
        assert torch.equal(a, b), f"{name} differs by {(a.double() - b.double()).abs().max().item():.3e}"


def assert_differ_by_roundings(name: str, one: Tensor, other: Tensor) -> None:
    """Two sums of one precision in another order: not the error bound, which of few values is luck."""
    if one.numel():
        limit = ROUNDINGS * torch.finfo(one.dtype).eps * one.abs().max().item()
        assert (one - other).abs().max().item() <= limit, f"{name}: more than {ROUNDINGS} roundings apart"


def poisoned(x: Tensor, where: Tensor, poison: float | str) -> Tensor:
    """`x` with what nobody may look at replaced, in its own memory."""
    x[where] = -x[where] if poison == "flipped" else poison
    return x


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rows", ["all", "visible", "hidden"])
def test_what_a_hidden_token_holds_changes_no_bit(back_end: BackEnd, rows: str) -> None:
    @for_all(back_end, st.sampled_from(POISONS))
    def holds(example: Example, poison: float | str) -> None:
        seen = example.seen.to(back_end.device)
        context = Visible.in_place(~seen, rows)
        unasked = {"all": torch.zeros_like(seen), "visible": ~seen, "hidden": seen}[rows]

        def run(poison: float | str | None) -> list[Tensor]:
            q, k, v = example.tensors(back_end.device)
            d_out = example.d_out(back_end.device)
            if poison is not None:
                q, d_out = poisoned(q, unasked, poison), poisoned(d_out, unasked, poison)
                k, v = poisoned(k, ~seen, poison), poisoned(v, ~seen, poison)
            return back_end.outcome([q, k, v], d_out, context)

        clean = run(None)
        assert_same_bits(clean, run(poison))
        # Those results are of rows that count; the others are zeros.
        for x, without in zip(clean, (unasked, unasked, ~seen, ~seen), strict=True):
            assert bool((x[without] == 0).all())
            assert bool(x.isfinite().all())


@pytest.mark.usefixtures("one_thread")
def test_packed_equals_in_place(back_end: BackEnd) -> None:
    @for_all(back_end)
    def holds(example: Example) -> None:
        seen = example.seen.to(back_end.device)
        lengths = seen.sum(1)
        longest = int(lengths.max())
        tensors, d_out = example.tensors(back_end.device), example.d_out(back_end.device)

        def in_place(most_visible: int) -> list[Tensor]:
            made = back_end.outcome(tensors, d_out, Visible.in_place(~seen, "visible", most_visible))
            return [x[seen] for x in made]

        packed = back_end.outcome([x[seen] for x in tensors], d_out[seen], Visible.packed(lengths, longest))
        assert_same_bits(packed, in_place(longest))
        # With a looser bound PyTorch's products have other shapes, and Triton's kernels other tiles.
        loose = in_place(example.tokens)
        if back_end.way == "native":
            assert_same_bits(packed, loose)
        for name, a, b in zip(("out", "dq", "dk", "dv"), packed, loose, strict=True):
            assert_differ_by_roundings(name, a, b)


@pytest.mark.usefixtures("one_thread")
def test_permuting_images_permutes_results(back_end: BackEnd) -> None:
    @for_all(back_end, st.integers(0, 9))
    def holds(example: Example, seed: int) -> None:
        order = torch.randperm(len(example.shown), generator=torch.Generator().manual_seed(seed))
        order = order.to(back_end.device)
        seen = example.seen.to(back_end.device)
        tensors, d_out = example.tensors(back_end.device), example.d_out(back_end.device)
        if not back_end.ours:
            assume(example.width % 32 == 0)
            tensors = [x.contiguous() for x in tensors]
        before = back_end.outcome(tensors, d_out, Visible.in_place(~seen))
        after = back_end.outcome([x[order] for x in tensors], d_out[order], Visible.in_place(~seen[order]))
        assert_same_bits([x[order] for x in before], after)


def test_runs_repeat_bit_for_bit(back_end: BackEnd) -> None:
    @for_all(back_end, examples_of=6 if back_end.ours else 3)
    def holds(example: Example) -> None:
        context = Visible.in_place(~example.seen.to(back_end.device))
        tensors, d_out = example.tensors(back_end.device), example.d_out(back_end.device)
        first = back_end.outcome(tensors, d_out, context)
        for _ in range(back_end.repeats):
            assert_same_bits(first, back_end.outcome(tensors, d_out, context))


@pytest.mark.skipif(launch.INTERPRETED, reason="the interpreter has no part in it")
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_the_number_of_threads_changes_no_bit_of_the_native_way(instruction_set: str) -> None:
    before = torch.get_num_threads()

    def holds(example: Example) -> None:
        context = Visible.in_place(~example.seen)
        tensors, d_out = example.tensors("cpu"), example.d_out("cpu")
        try:
            torch.set_num_threads(1)
            alone = NATIVE.outcome(tensors, d_out, context)
            for threads in (2, 3, 7):
                torch.set_num_threads(threads)
                assert_same_bits(alone, NATIVE.outcome(tensors, d_out, context))
        finally:
            torch.set_num_threads(before)

    with instructions(instruction_set):
        for_all(NATIVE)(holds)
