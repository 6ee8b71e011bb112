"""From the profiler's events to a window: who ran inside whom, and whose time it was."""

from __future__ import annotations

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
_SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
# Whose the time is where work of two kinds overlaps on a GPU.
_ORDER = ("matrix", "memory", "optimizer", "communication", "copy")
# Operations that are kept by name.
_MOST_OPS = 60


@dataclass(eq=False)
class Event:
    """One event; seconds on the profiler's clock.

    Args:
        thread: of the host; a stream where `device`.
        launched_by: the `number` of the operation on the host that launched it.
        recorded: for autograd, as forward passes are.
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
    parent: Event | None = field(default=None, repr=False)
    inner: float = 0.0  # seconds of those directly inside
    composite: bool = False  # others inside it move what it is given

    @classmethod
    def of(cls, event: Any) -> Event:
        device = event.device_type().name not in ("CPU",)
        name = event.name()
        is_op = not device and "::" in name and not event.is_user_annotation() and _BACKWARD not in name
        return cls(
            name,
            event.start_ns() / 1e9,
            event.end_ns() / 1e9,
            event.device_resource_id() if device else event.start_thread_id(),
            device,
            is_op,
            event.correlation_id(),
            event.linked_correlation_id() if device else 0,
            event.sequence_nr() >= 0,
            Call(name, event.shapes(), event.dtypes(), event.concrete_inputs()) if is_op else None,
        )

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def own(self) -> float:
        return max(self.seconds - self.inner, 0.0)

    def above(self) -> Iterator[Event]:
        """Itself, and all that it ran inside, outwards."""
        event: Event | None = self
        while event is not None:
            yield event
            event = event.parent


def read(events: Sequence[Event], steps: int, handing_out: float) -> Window:
    """The window of these events.

    Args:
        handing_out: seconds that any operation costs on the host; so much of each one's own time is no work.
    """
    whole = next(event for event in events if event.name == WHOLE)
    host = [event for event in events if not event.device]
    _nest(host)
    kernels = [event for event in events if event.device and event.name not in (WHOLE, DATA)]
    found = _Window(whole, steps)
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
        for event in sorted(own, key=lambda event: (event.begin, -event.end)):
            while open_ and open_[-1].end <= event.begin:
                open_.pop()
            # What began inside but ends outside (work of another thread, noted here) is nobody's child.
            if open_ and event.end <= open_[-1].end:
                event.parent = open_[-1]
                event.parent.inner += event.seconds
                event.parent.composite |= event.call is not None and event.call.bytes is not None
            open_.append(event)


def _owner(event: Event) -> Event:
    """The outermost operation that it ran inside and that has a formula, else the operation itself."""
    counted = event
    for outer in event.above():
        if outer.call is not None and outer.call.operations is not None:
            counted = outer
    return counted


def _hands_on(event: Event) -> bool:
    """Whether it only calls others, or does so little that handing it out takes longer: it is no work."""
    call = _owner(event).call
    return call is None or call.small or (event.composite and call.operations is None)


def _kind(owner: Event) -> str:
    if owner.name.startswith(_COMMUNICATION):
        return "communication"
    if owner.call is not None and owner.call.operations is not None:
        return "matrix"
    if any(outer.name.startswith("Optimizer.step") for outer in owner.above()):
        return "optimizer"
    return "copy" if owner.name.startswith(_COPIES) else "memory"


class _Window:
    """One that is being filled."""

    def __init__(self, whole: Event, steps: int) -> None:
        self._whole, self._steps = whole, steps
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
            elif event.is_op and not any(outer.name == DATA for outer in event.above()):
                self._launches += 1
                self._add(event, max(event.own - handing_out, 0.0), of_timeline=not _hands_on(event))
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
            if kernel.name.startswith(_COMMUNICATION) or launcher is None:
                kind = _kind(kernel)
                self._line(kernel, kind, kernel.seconds, None)
            else:
                kind = "copy" if kernel.name.startswith("Memcpy") else _kind(_owner(launcher))
                self._add(launcher, kernel.seconds, kind, of_timeline=False)
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

    def _add(self, event: Event, seconds: float, kind: str | None = None, of_timeline: bool = True) -> None:
        owner = _owner(event)
        kind = kind or _kind(owner)
        if of_timeline:
            self._timeline[kind] += seconds
        line = self._line(owner, kind, seconds, owner.call)
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
            if owner.recorded and any(_BACKWARD in outer.name for outer in owner.above()):
                again = operations
            line.operations = (line.operations or 0.0) + operations
            line.model_operations = (line.model_operations or 0.0) + operations - again
        if moved is not None:
            line.bytes = (line.bytes or 0.0) + moved

    def made(self) -> Window:
        seconds = self._whole.seconds
        self._timeline["idle"] = max(seconds - sum(self._timeline.values()), 0.0)
        ops = sorted(self._ops.values(), key=lambda op: -op.seconds)
        ops, rest = ops[:_MOST_OPS], ops[_MOST_OPS:]
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
