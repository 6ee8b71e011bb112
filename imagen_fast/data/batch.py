"""What a loader yields, and how it comes to a GPU."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """`images` [B, C, H, W], or patch tokens [B, N, P * P * C]; `labels` int64 [B] or None; `indices` int64
    [B] into the source."""

    images: Tensor
    labels: Tensor | None
    indices: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device, copied asynchronously where that is possible."""
        return Batch(
            *(None if part is None else part.to(device, non_blocking=True) for part in self)  # type: ignore[arg-type]
        )

    def as_dict(self) -> dict[str, Tensor]:
        """`pixel_values`, and `labels` where there are any: what transformers' models take."""
        return {"pixel_values": self.images} | ({} if self.labels is None else {"labels": self.labels})


class Sent(NamedTuple):
    """A batch on its way to where it is used; `copied` is None where nothing had to be copied."""

    batch: Batch
    copied: torch.cuda.Event | None = None

    def receive(self) -> Batch:
        """The batch, for what the caller computes next on its current stream."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.batch.images.device)
            stream.wait_event(self.copied)
            for part in self.batch:
                if part is not None:
                    # It was allocated for another stream, which could else have its memory again too early.
                    part.record_stream(stream)
        return self.batch


class Transfer:
    """Copies batches to a GPU from pinned memory, on a stream of its own, while that computes.

    Pinned memory comes from PyTorch's allocator of it, which hands it out again only when the copies that
    read it are done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, batch: Batch) -> Sent:
        """Begin to copy; from any thread."""
        pinned = (part if part is None or part.is_pinned() else part.pin_memory() for part in batch)
        with torch.cuda.stream(self._stream):
            there = Batch(*pinned).to(self.device)  # type: ignore[arg-type]
            return Sent(there, self._stream.record_event())
