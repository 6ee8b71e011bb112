"""Where images are wanted."""

import torch

from imagen_fast.errors import BackendUnavailable, InvalidInput


def checked_device(device: torch.device | str) -> torch.device:
    """The CPU, or a GPU that is there, with its number: threads have a current device of their own.

    Raises `InvalidInput` for another device, `BackendUnavailable` for a GPU that is not there.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise InvalidInput(f"device must be cpu, cuda or cuda:0 and so on, not {device}") from None
    if found.type not in ("cpu", "cuda"):
        raise InvalidInput(f"images are made on the CPU or on a GPU, not on {found}")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise BackendUnavailable(f"images cannot be made on {found}: PyTorch finds no CUDA device")
        if found.index is None:
            found = torch.device("cuda", torch.cuda.current_device())
        if found.index >= torch.cuda.device_count():
            raise BackendUnavailable(
                f"images cannot be made on {found}: there are {torch.cuda.device_count()} CUDA devices"
            )
    return found
