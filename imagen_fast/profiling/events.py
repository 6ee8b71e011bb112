"""From the profiler's events to a window: who ran inside whom, and whose time it was."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagen_fast.profiling.operations import Call
from imagen_fast.profiling.recording import Op, Window

# What we write into the trace ourselves: a wait for input, and the window.
DATA = "imagen_fast::data"
WHOLE = "imagen_fast::window"

_COPIES = (
    "aten::copy_",
    "aten::_to_copy",
    "aten::clone",
    "aten::contiguous",
    "aten::_foreach_copy_",
    "Memcpy",
)
_COMMUNICATION = ("c10d::", "gloo:", "nccl", "mpi:", "_c10d_functional::")
_BACKWARD = "autograd::engine::evaluate_function"
_UPDATE = "Optimizer.step"
# Loops that a compiler made of several operations, on a CPU.
_COMPILED = ("Torch-Compiled Region", "CompiledFunction", "## Call CompiledFxGraph")
# Kernels that multiply matrices, launched by nothing that has a formula: compiled ones, or a graph's.
_PRODUCTS = re.compile(
    r"gemm|cutlass|xmma|winograd|[fdw]prop|[dw]grad|flash|attention|fmha|triton_tem|triton_mm|wgmma",
    re.IGNORECASE,
)
_SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
# Whose the time is where work of two kinds overlaps on a GPU.
_ORDER = ("matrix", "memory", "optimizer", "communication", "copy")
# Of the time for handing out: what takes longer works, whatever is known of it.
_CLEARLY = 3
# Operations that are kept by name, beside those whose operations are counted.
_MOST_OPS = 60


@dataclass(eq=False)
class Event:
    """One event; seconds on the profiler's clock.

    Args:
        thread: of the host; a stream where `device`.
        launched_by: the `number` of the operation on the host that launched it.
        recorded: for autograd, as forward passes are.
        note: no work, but a name for a stretch of time.
    """

    name: str
    begin: float
    end: float
    thread: int
    device: bool
    is_op: bool
    number: int = 0
    launched_by: int = 0
    recorded: bool = False
    call: Call | None = None
    note: bool = False
    parent: Event | None = field(default=None, repr=False)
    inner: float = 0.0  # seconds of those directly inside
    composite: bool = False  # others inside it move what it is given
    # Of what it ran inside, itself included; known from `_nest` on. The owner is the outermost that has a
    # formula, else the event itself.
    owner: Event | None = field(default=None, repr=False)
    in_backward: bool = False
    in_update: bool = False
    in_data: bool = False

    @classmethod
    def of(cls, event: Any) -> Event:
        device = event.device_type().name != "CPU"
        name = event.name()
        note = event.is_user_annotation() or "annotation" in _activity(event)
        compiled = not device and name.startswith(_COMPILED)
        is_op = compiled or (not device and not note and "::" in name and _BACKWARD not in name)
        return cls(
            next((kind for kind in _COMPILED if compiled and name.startswith(kind)), name),
            event.start_ns() / 1e9,
            event.end_ns() / 1e9,
            event.device_resource_id() if device else event.start_thread_id(),
            device,
            is_op,
            event.correlation_id(),
            event.linked_correlation_id() if device else 0,
            event.sequence_nr() >= 0,
            _call(event, name) if is_op else None,
            note and not compiled,
        )

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def own(self) -> float:
        return max(self.seconds - self.inner, 0.0)


def _call(event: Any, name: str) -> Call:
    # Those of tensors in lists too, where the release tells them.
    shapes = getattr(event, "structured_input_shapes", event.shapes)
    return Call(name, shapes(), event.dtypes(), event.concrete_inputs())


def _activity(event: Any) -> str:
    kind = getattr(event, "activity_type", None)  # not in every release
    return "" if kind is None else str(kind())


def read(events: Sequence[Event], steps: int, handing_out: float) -> Window:
    """The window of these events.

    Args:
        handing_out: seconds that any operation costs on the host; so much of each one's own time is no work.
    """
    whole = next(event for event in events if event.name == WHOLE)
    host = [event for event in events if not event.device]
    _nest(host)
    # What the host named is drawn on the GPU's time as well, gaps and all.
    named = {event.name for event in host if event.note}
    kernels = [event for event in events if event.device and not event.note and event.name not in named]
    found = _Window(whole, steps, _forgets(host))
    if kernels:
        found.on_gpu(host, kernels)
    else:
        found.on_cpu(host, handing_out)
    return found.made()


def _nest(events: Sequence[Event]) -> None:
    threads: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        threads[event.thread].append(event)
    for own in threads.values():
        open_: list[Event] = []
        own.sort(key=lambda event: (event.begin, -event.end))
        for event in own:
            while open_ and open_[-1].end <= event.begin:
                open_.pop()
            # What began inside but ends outside (work of another thread, noted here) is nobody's child.
            if open_ and event.end <= open_[-1].end:
                event.parent = open_[-1]
            _place(event)
            open_.append(event)
        # An update that calls the whole step (a closure) is no update alone.
        closures = {id(outer) for event in own if event.in_backward for outer in _updates(event)}
        for event in own:
            event.in_update = any(id(outer) not in closures for outer in _updates(event))


def _place(event: Event) -> None:
    outer = event.parent
    event.owner = event
    event.in_backward, event.in_data = _BACKWARD in event.name, event.name == DATA
    event.in_update = event.name.startswith(_UPDATE)
    if outer is None:
        return
    outer.inner += event.seconds
    outer.composite |= event.call is not None and event.call.bytes is not None
    event.in_backward |= outer.in_backward
    event.in_data |= outer.in_data
    event.in_update |= outer.in_update
    above = outer.owner
    if above is not None and above.call is not None and above.call.operations is not None:
        event.owner = above


def _updates(event: Event) -> Iterator[Event]:
    """The optimisers' updates that it ran inside."""
    outer = event if event.in_update else None
    while outer is not None:
        if outer.name.startswith(_UPDATE):
            yield outer
        outer = outer.parent


def _forgets(host: Sequence[Event]) -> bool:
    """Whether backward passes are recorded in part, by checkpointing; whole ones are for more derivatives."""
    products = [e for e in host if e.in_backward and e.call is not None and e.call.operations is not None]
    return not all(event.recorded for event in products)


def _works(event: Event, work: float, handing_out: float) -> bool:
    """Whether it does more than to be handed out: what is known to do little is no work."""
    owner = event.owner or event
    if owner.call is None or owner.call.small:
        return False
    plain = owner.call.operations is not None or (owner.call.bytes is not None and not owner.composite)
    return plain or work > _CLEARLY * handing_out


def _kind(owner: Event) -> str:
    if owner.name.startswith(_COMMUNICATION):
        return "communication"
    if owner.call is not None and owner.call.operations is not None:
        return "matrix"
    if owner.in_update:
        return "optimizer"
    if owner.device and _PRODUCTS.search(owner.name):
        return "matrix"
    return "copy" if owner.name.startswith(_COPIES) else "memory"


class _Window:
    """One that is being filled."""

    def __init__(self, whole: Event, steps: int, forgets: bool) -> None:
        self._whole, self._steps, self._forgets = whole, steps, forgets
        self._timeline = dict.fromkeys(
            ("data", "copy", "communication", "matrix", "memory", "optimizer"), 0.0
        )
        self._ops: dict[tuple[str, str, str | None], Op] = {}
        self._counted: set[int] = set()
        self._launches = self._syncs = 0
        self._device = "cpu"

    def on_cpu(self, host: Sequence[Event], handing_out: float) -> None:
        """The time of the thread that trains; what no operation took is idle."""
        waits = []
        busy = []
        for event in host:
            if event.thread != self._whole.thread:
                if event.name.startswith(_COMMUNICATION):
                    waits.append((event.begin, event.end))
            elif event.name == DATA:
                self._timeline["data"] += event.seconds
                busy.append((event.begin, event.end))
            elif event.is_op and not event.in_data:
                work = max(event.own - handing_out, 0.0)
                self._launches += 1
                self._add(event, work)
                if event.call is not None and _works(event, work, handing_out):
                    self._timeline[_kind(event.owner or event)] += work
                busy.append((event.begin, event.end))
        # While this thread did nothing of its own, it waited for what others sent.
        idle = _without(_union(waits), _union(busy))
        self._timeline["communication"] += sum(end - begin for begin, end in idle)

    def on_gpu(self, host: Sequence[Event], kernels: Sequence[Event]) -> None:
        """The time of the GPU; where it does nothing, the host waits for data, or has launched nothing."""
        self._device = "cuda"
        by_number = {event.number: event for event in host if event.is_op}
        spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for kernel in kernels:
            launcher = by_number.get(kernel.launched_by)
            owner = kernel if launcher is None else launcher.owner or launcher
            kind = "copy" if kernel.name.startswith("Memcpy") else _kind(kernel)
            if launcher is None or kind in ("communication", "copy"):
                self._line(kernel, kind, kernel.seconds, None)
            else:
                # A compiler's kernel has no formula above it, but its name tells.
                kind = kind if kind == "matrix" else _kind(owner)
                self._add(launcher, kernel.seconds, kind)
            spans[kind].append((kernel.begin, kernel.end))
        self._launches = len(kernels)
        self._syncs = sum(event.name in _SYNCS for event in host)
        taken: list[tuple[float, float]] = []
        for kind in _ORDER:
            alone = _without(_union(spans[kind]), taken)
            self._timeline[kind] += sum(end - begin for begin, end in alone)
            taken = _union([*taken, *alone])
        waits = _union([(event.begin, event.end) for event in host if event.name == DATA])
        self._timeline["data"] += sum(end - begin for begin, end in _without(waits, taken))

    def _add(self, event: Event, seconds: float, kind: str | None = None) -> None:
        owner = event.owner or event
        line = self._line(owner, kind or _kind(owner), seconds, owner.call)
        if id(owner) not in self._counted:
            self._counted.add(id(owner))
            line.calls += 1
            if not (owner.composite and owner.call is not None and owner.call.operations is None):
                self._count(line, owner)

    def _line(self, event: Event, kind: str, seconds: float, call: Call | None) -> Op:
        dtype = None if call is None else call.dtype
        line = self._ops.setdefault((event.name, kind, dtype), Op(event.name, kind, 0, 0.0, dtype=dtype))
        line.seconds += seconds
        if call is None:
            line.calls += 1
        return line

    def _count(self, line: Op, owner: Event) -> None:
        call = owner.call
        if call is None:
            return
        operations, moved = call.operations, call.bytes
        if operations is not None:
            again = call.again(operations)
            # A forward pass that is recorded inside a backward one is made again, by checkpointing.
            if owner.recorded and owner.in_backward and self._forgets:
                again = operations
            line.operations = (line.operations or 0.0) + operations
            line.model_operations = (line.model_operations or 0.0) + operations - again
        if moved is not None:
            line.bytes = (line.bytes or 0.0) + moved

    def made(self) -> Window:
        seconds = self._whole.seconds
        self._timeline["idle"] = max(seconds - sum(self._timeline.values()), 0.0)
        ops = sorted(self._ops.values(), key=lambda op: -op.seconds)
        kept = [place < _MOST_OPS or op.operations is not None for place, op in enumerate(ops)]
        rest = [op for op, keep in zip(ops, kept, strict=True) if not keep]
        ops = [op for op, keep in zip(ops, kept, strict=True) if keep]
        if rest:
            ops.append(
                Op("all others", "memory", sum(op.calls for op in rest), sum(op.seconds for op in rest))
            )
        return Window(self._device, self._steps, seconds, self._timeline, self._launches, self._syncs, ops)


Spans = list[tuple[float, float]]


def _union(spans: Spans) -> Spans:
    """Those, sorted and where they touch made one."""
    made: Spans = []
    for begin, end in sorted(spans):
        if made and begin <= made[-1][1]:
            made[-1] = made[-1][0], max(end, made[-1][1])
        else:
            made.append((begin, end))
    return made


def _without(spans: Spans, others: Spans) -> Spans:
    """What of `spans` is in none of `others`; both as `_union` gives them."""
    made, next_ = [], 0
    for begin, end in spans:
        while next_ < len(others) and others[next_][1] <= begin:
            next_ += 1
        at = next_
        while at < len(others) and others[at][0] < end:
            if others[at][0] > begin:
                made.append((begin, others[at][0]))
            begin = max(begin, others[at][1])
            at += 1
        if begin < end:
            made.append((begin, end))
    return made
