"""Which GPUs a program uses: those that CUDA_VISIBLE_DEVICES leaves it, as CUDA reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Chosen:
    """Args:
    places: into the list of GPUs, in the program's order.
    doubt: why these may be other GPUs than the program's.
    """

    places: list[int]
    doubt: str | None = None


def choose(uuids: list[str], names: list[str], environment: Mapping[str, str]) -> Chosen:
    """Among GPUs in NVML's order, that of the PCI bus.

    Args:
        uuids: `GPU-...` and, of a GPU that is divided, `MIG-...` of each instance.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return Chosen(list(range(len(uuids))))
    tokens = [token.strip() for token in wanted.split(",")]
    by_number = any(token.isdigit() for token in tokens)
    ordered = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if by_number and len(set(names)) > 1 and not ordered:
        # CUDA then numbers the fastest first, and only CUDA knows which it takes for that.
        doubt = (
            "CUDA_VISIBLE_DEVICES gives numbers, the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID: "
            "all GPUs are sampled"
        )
        return Chosen(list(range(len(uuids))), doubt)
    places: list[int] = []
    for token in tokens:
        place = _place(token, uuids)
        # CUDA stops at the first that is none, and sees none at all where one comes twice.
        if place is None:
            break
        if place in places:
            return Chosen([])
        places.append(place)
    return Chosen(places)


def _place(token: str, uuids: list[str]) -> int | None:
    if token.isdigit():
        return int(token) if int(token) < len(uuids) else None
    if not token.startswith(("GPU-", "MIG-")):
        return None
    fitting = [place for place, uuid in enumerate(uuids) if uuid.startswith(token)]
    return fitting[0] if len(fitting) == 1 else None
