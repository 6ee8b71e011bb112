"""Programs that are held up by one thing, on purpose: `python bottlenecks.py NAME SECONDS`.

They are what the profiler is tried on: recorded once into `traces/` (record_traces.py), and two of them live.
On a machine with a GPU the models run there.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = 10


class Made(Dataset):
    """Images that are there at once: numbers made up in memory."""

    def __init__(self, side: int, dtype: torch.dtype = torch.float32) -> None:
        self.images = torch.randn(64, 3, side, side).to(dtype)

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index % len(self.images)], index % CLASSES


class Distant(Made):
    """Each image takes a while to arrive, as from a bucket across a network."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(0.004)
        return super().__getitem__(index)


class OnDisk(Made):
    """Each image is read from a file, past the cache of the system."""

    def __init__(self, side: int) -> None:
        super().__init__(side)
        # In the folder it is started in: where temporary files go may be memory.
        self.file = tempfile.NamedTemporaryFile(dir=Path.cwd())  # noqa: SIM115
        self.size = 8 << 20
        self.file.write(os.urandom(self.size) * 8)
        self.file.flush()
        os.fsync(self.file.fileno())

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with open(self.file.name, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(index % 8 * self.size)
            file.read(self.size)
        return super().__getitem__(index)


class Jpegs(Dataset):
    """Photographs that Pillow decodes and shrinks."""

    def __init__(self) -> None:
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
        kept = io.BytesIO()
        Image.fromarray(noise).resize((800, 600)).save(kept, "JPEG", quality=92)
        self.bytes = kept.getvalue()

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.open(io.BytesIO(self.bytes)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255, index % CLASSES


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def wide(width: int = 1024, depth: int = 3, inputs: int = 3 * 32 * 32) -> nn.Module:
    """Products of large matrices, and little else."""
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), *hidden, nn.Linear(width, CLASSES))


def train(
    model: nn.Module,
    batches: DataLoader,
    until: float,
    forward: Callable[[nn.Module, Tensor], Tensor] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    between: Callable[[int], None] | None = None,
) -> None:
    model.to(DEVICE)
    made = optimizer(model.parameters(), lr=1e-4)
    step = 0
    while True:
        for images, labels in batches:
            images, labels = images.to(DEVICE), labels.to(DEVICE)
            outputs = model(images) if forward is None else forward(model, images)
            F.cross_entropy(outputs, labels).backward()
            made.step()
            made.zero_grad()
            step += 1
            if between is not None:
                between(step)
            if time.monotonic() > until:
                return


def distant_storage(until: float) -> None:
    train(small(), DataLoader(Distant(32), 16), until)


def distant_storage_with_workers(until: float) -> None:
    train(small(), DataLoader(Distant(32), 16, num_workers=2), until)


def slow_disk(until: float) -> None:
    train(small(), DataLoader(OnDisk(32), 8), until)


def decoding_in_the_training_process(until: float) -> None:
    train(small(), DataLoader(Jpegs(), 16), until)


def decoding_in_workers(until: float) -> None:
    train(small(), DataLoader(Jpegs(), 16, num_workers=1), until)


def copying(until: float) -> None:
    """A layout and a type that are changed back and forth, as where parts of a model disagree on them."""

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        for _ in range(8):
            images = images.double().to(memory_format=torch.channels_last).float().contiguous()
        return model(images)

    train(small(), DataLoader(Made(160), 32), until, forward)


def launching(until: float) -> None:
    """Many layers of next to no work each."""
    layers = [layer for _ in range(120) for layer in (nn.Linear(8, 8), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), *layers, nn.Linear(8, CLASSES))
    train(model, DataLoader(Made(4), 2), until)


def launching_in_python(until: float) -> None:
    """A loop over pixels in Python between layers."""

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        weights = [math_of(i) for i in range(20_000)]
        return model(images) * (sum(weights) / len(weights))

    def math_of(i: int) -> float:
        return (i % 7) * 0.5 + 1.0

    train(small(), DataLoader(Made(8), 4), until, forward)


def memory_bound(until: float) -> None:
    """Operations of an element at a time on tensors past every cache."""

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        for _ in range(6):
            images = (images * 1.01 + 0.01).clamp(-3, 3).abs()
        return model(images[:, :, :8, :8])

    train(small(), DataLoader(Made(256), 32), until, forward)


def optimizer_bound(until: float) -> None:
    """Few images a step for many weights: the update reads and writes them all."""

    def adamw(weights: Iterator[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(weights, lr=lr, foreach=False)

    train(wide(2048, 3, 48), DataLoader(Made(4), 1), until, optimizer=adamw)


def compute_bound(until: float) -> None:
    train(wide(1024), DataLoader(Made(32), 256), until)


def compute_bound_in_bfloat16(until: float) -> None:
    def forward(model: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return model(images).float()

    train(wide(1024), DataLoader(Made(32), 512), until, forward)


def validating(until: float) -> None:
    """Stops every so many steps for something else."""

    def between(step: int) -> None:
        if step % 20 == 0:
            with torch.inference_mode():
                work = torch.randn(512, 512)
                for _ in range(150):
                    work = F.normalize(work @ work)

    train(small(), DataLoader(Made(32), 16), until, between=between)


def communicating(until: float) -> None:
    """Two processes that exchange gradients, and large features for a loss over both."""
    import torch.distributed as dist
    import torch.multiprocessing as mp

    if "RANK" not in os.environ:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29500 + os.getpid() % 1000), WORLD_SIZE="2"
        )
        context = mp.get_context("spawn")
        ranks = []
        for rank in range(2):
            os.environ["RANK"] = str(rank)
            ranks.append(context.Process(target=communicating, args=(until,)))
            ranks[-1].start()
        for process in ranks:
            process.join()
        return
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(wide(256, 2, 48).to(DEVICE))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    features = torch.randn(6_000_000, device=DEVICE)
    for images, labels in DataLoader(Made(4), 8):
        F.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
        dist.all_reduce(features)
        optimizer.step()
        optimizer.zero_grad()
        # Both end at the same step: a rank that stops alone leaves the other waiting.
        over = torch.tensor(float(time.monotonic() > until), device=DEVICE)
        dist.all_reduce(over)
        if over:
            break
    dist.destroy_process_group()


def throttled(until: float) -> None:
    """The compute-bound program, in a control group with a quota (record_traces.py makes it)."""
    compute_bound(until)


def crowded(until: float) -> None:
    """The compute-bound program beside others that take as many processors as there are, twice."""
    import subprocess

    cores = os.cpu_count() or 1
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], start_new_session=True)
        for _ in range(2 * cores)
    ]
    try:
        compute_bound(until)
    finally:
        for process in busy:
            process.kill()


# What each is held up by.
BOTTLENECKS = {
    distant_storage: "data",
    distant_storage_with_workers: "data",
    slow_disk: "data",
    decoding_in_the_training_process: "decoding",
    decoding_in_workers: "decoding",
    copying: "copying",
    launching: "launching",
    launching_in_python: "launching",
    memory_bound: "memory",
    optimizer_bound: "memory",
    compute_bound: "compute",
    compute_bound_in_bfloat16: "compute",
    communicating: "communication",
    validating: "paused",
    throttled: "throttled",
}
BY_NAME = {program.__name__: program for program in BOTTLENECKS}


def keep_events(path: str) -> None:
    """Write the events of the window, as the profiler reads them, beside what it makes of them."""
    from imagen_fast.profiling import window

    read = window.read

    def reading(events: list, steps: int, handing_out: float):
        rows = [
            (
                *(e.name, round(e.begin * 1e6, 1), round(e.end * 1e6, 1), e.thread, e.device, e.is_op),
                *(e.number, e.launched_by, e.recorded, e.note, None if e.call is None else e.call.arguments),
            )
            for e in events
        ]
        Path(path).write_text(json.dumps({"steps": steps, "handing_out": handing_out, "events": rows}))
        return read(events, steps, handing_out)

    window.read = reading


if __name__ in ("__main__", "__mp_main__") and "EVENTS" in os.environ and os.environ.get("RANK", "0") == "0":
    keep_events(os.environ["EVENTS"])

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    BY_NAME[sys.argv[1]](time.monotonic() + float(sys.argv[2]))
