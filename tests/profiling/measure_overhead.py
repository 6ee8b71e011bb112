"""What being profiled costs a training loop: `python -P tests/profiling/measure_overhead.py [PAIRS [BATCH]]`.

Stretches of the same loop, with a profile around them and without, in turn in one process; the window of
operations, which is short and costs much, is left out. Prints the median ratio of their processor seconds and
of their wall time, and its 95% interval (ranks of the pairs, which assumes nothing of the noise).
"""

import math
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import imagen_fast

# Of a stretch: long enough that its first sample, which reads more than the others, counts for little.
SECONDS = 4.0


def training(batch_size):
    """Endless steps, with a DataLoader and an optimizer, as they are watched."""
    data = TensorDataset(torch.randn(1024, 3, 32, 32), torch.randint(0, 10, (1024,)))
    layers = nn.Linear(3072, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10)
    model = nn.Sequential(nn.Flatten(), *layers)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    while True:
        for x, y in DataLoader(data, batch_size=batch_size, shuffle=True):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            yield


def stretch(steps, count, profiled):
    """Processor and wall seconds of `count` steps."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stderr(StringIO()),
        imagen_fast.profile(folder, window=0) if profiled else nullcontext(),
    ):
        next(steps)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in islice(steps, count):
            pass
        return time.process_time() - cpu, time.perf_counter() - wall


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    steps = training(int(sys.argv[2]) if len(sys.argv) > 2 else 32)
    count = 50
    for profiled in (True, False):
        _, wall = stretch(steps, count, profiled)
    count = max(1, round(count * SECONDS / wall))
    print(f"{count} steps of {SECONDS / count * 1e3:.1f} ms")
    found = []
    for number in range(pairs):
        order = (False, True) if number % 2 else (True, False)
        taken = {profiled: stretch(steps, count, profiled) for profiled in order}
        found.append([profiled / plain for profiled, plain in zip(taken[True], taken[False], strict=True)])
    for name, ratios in zip(("processor", "wall"), zip(*found, strict=True), strict=True):
        ordered = sorted(ratios)
        out = max(0, math.floor(pairs / 2 - 0.98 * math.sqrt(pairs)))
        middle = ordered[pairs // 2]
        print(f"{name} seconds: {middle:.4f} [{ordered[out]:.4f}, {ordered[-1 - out]:.4f}], {pairs} pairs")


if __name__ == "__main__":
    main()
