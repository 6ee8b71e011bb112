"""The implementations that ours is measured beside: what each needs, and how to get it.

A new peer is a module here that builds it, imported only by the suite and only where `absence()` is None,
and its `Peer` below.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Absence:
    """A peer that takes no part in this run, why, and the command that brings it."""

    peer: str
    why: str
    install: str


class Refused(Exception):
    """A peer that is here does not take the case."""

    def __init__(self, absence: Absence) -> None:
        super().__init__(absence.why)
        self.absence = absence


@dataclass(frozen=True)
class Peer:
    """A peer by its import name.

    Args:
        name: the implementations that use it have this in theirs.
        needs_cuda: it has no kernel for a CPU.
    """

    name: str
    module: str
    install: str
    needs_cuda: bool = False

    def absence(self, device: str = "cpu") -> Absence | None:
        """None where the peer is here and serves the device. It is not imported: that can take seconds."""
        if self.needs_cuda and device != "cuda":
            return Absence(self.name, "needs a CUDA device", self.install)
        package = self.module.partition(".")[0]  # what lies inside is looked for where the package is
        try:
            if importlib.util.find_spec(package) and importlib.util.find_spec(self.module):
                return None
        except Exception as error:  # what lies around the module is imported
            why = (str(error) or type(error).__name__).splitlines()[0]
            return Absence(self.name, f"cannot be imported: {why}", self.install)
        return Absence(self.name, "not installed", self.install)

    def version(self) -> str | None:
        """Of the package that `install` names or, for a single module, of another one that provides it."""
        named = re.findall(r"pip install '?([\w-]+)", self.install)
        for package in (*named, *importlib.metadata.packages_distributions().get(self.module, ())):
            try:
                return importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    def load(self, *names: str) -> list[Any]:
        """These names of the peer's module, which may import more when it is asked for them.

        `python -m` in a checkout puts its root on the path, where a peer that looks for the package `kernels`
        would find our folder of that name: the root is off the path meanwhile.

        Raises:
            ImportError: it is installed, but whatever it does when it is imported fails.
        """
        path = sys.path[:]
        sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != _ROOT]
        try:
            module = importlib.import_module(self.module)
            return [getattr(module, name) for name in names]
        except ImportError:
            raise
        except Exception as error:
            # A server of processes passes over a module that it cannot import, but dies of any other error.
            raise ImportError(f"{self.name} cannot be imported: {error}") from error
        finally:
            sys.path[:] = path


TRANSFORMERS = Peer("transformers", "transformers", "pip install 'transformers>=5.0'")
TIMM = Peer("timm", "timm", "pip install 'timm>=1.0.15'")
VARLEN_ATTN = Peer("varlen_attn", "torch.nn.attention.varlen", "pip install 'torch>=2.10'", needs_cuda=True)
FLASH_ATTN = Peer("flash-attn", "flash_attn", "pip install flash-attn --no-build-isolation", needs_cuda=True)
XFORMERS = Peer("xformers", "xformers.ops", "pip install xformers", needs_cuda=True)
NATTEN = Peer("NATTEN", "natten", "pip install natten; see natten.org/install for wheels with its kernels")
TORCH_LINEAR_CROSS_ENTROPY = Peer(
    "linear_cross_entropy", "torch.nn.modules.linear_cross_entropy_options", "pip install 'torch>=2.13'"
)
LIGER = Peer("Liger", "liger_kernel.transformers.functional", "pip install liger-kernel", needs_cuda=True)
CUT_CROSS_ENTROPY = Peer(
    "Cut Cross-Entropy", "cut_cross_entropy", "pip install cut-cross-entropy", needs_cuda=True
)
QUACK = Peer("QuACK", "quack.linear_cross_entropy", "pip install quack-kernels", needs_cuda=True)
TORCHVISION = Peer("torchvision", "torchvision", "pip install torchvision")
TORCHCODEC = Peer("TorchCodec", "torchcodec", "pip install 'torchcodec>=0.16'")
SIMPLEJPEG = Peer("simplejpeg", "simplejpeg", "pip install simplejpeg")
OPENCV = Peer("OpenCV", "cv2", "pip install 'opencv-python-headless>=4.11'")
WEBDATASET = Peer("webdataset", "webdataset", "pip install webdataset")
DALI = Peer("DALI", "nvidia.dali", "pip install nvidia-dali-cuda130")
FFCV = Peer("FFCV", "ffcv", "apt-get install pkg-config libopencv-dev libturbojpeg0-dev && pip install ffcv")
PILLOW = Peer("Pillow", "PIL", "pip install pillow")  # never absent: ours needs it too

# Those of PyTorch are of its version.
PACKAGED = tuple(
    peer
    for peer in list(globals().values())
    if isinstance(peer, Peer) and not peer.module.startswith("torch.")
)


def try_out(name: str, trial: Callable[[], object]) -> None:
    """On little work, where a peer is known to refuse some.

    Raises:
        Refused: with the peer's own words.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # a trial is slow, and says so
            trial()
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise Refused(Absence(name, why, "installed, but refuses the case")) from error


def memory_absence(name: str, case: str, needed: int, device: str) -> Absence | None:
    """On a GPU, of one that holds more bytes at once than there are."""
    if device == "cpu" or needed <= torch.cuda.get_device_properties(0).total_memory:
        return None
    return Absence(f"{name} ({case})", f"needs about {needed / 1e9:.0f} GB", "take a GPU with more memory")


def compiler_absence(name: str, device: str, quick: bool) -> Absence | None:
    """torch.compile builds C++ when it runs, so a mode that uses it needs a compiler on the machine."""
    if quick and device == "cpu":
        return Absence(name, "takes longer to compile than a quick run may", "leave out --quick")
    if shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        return None
    return Absence(name, "torch.compile found no C++ compiler", "install g++, or name a compiler in CXX")
