"""The implementations that ours is measured beside: what each needs, and how to get it.

A new peer is a module here that builds it, imported only by the suite and only where `absence()` is None,
and its `Peer` below.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Absence:
    """A peer that takes no part in this run, why, and the command that brings it."""

    peer: str
    why: str
    install: str


@dataclass(frozen=True)
class Peer:
    """A peer by its import name."""

    name: str
    module: str
    install: str

    def absence(self) -> Absence | None:
        """None where the peer is installed. Nothing is imported: some peers take seconds."""
        package = self.module.partition(".")[0]  # what lies inside is looked for where the package is
        if importlib.util.find_spec(package) and importlib.util.find_spec(self.module):
            return None
        return Absence(self.name, "not installed", self.install)

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
VARLEN_ATTN = Peer("varlen_attn", "torch.nn.attention.varlen", "pip install 'torch>=2.10'")
FLASH_ATTN = Peer("flash-attn", "flash_attn", "pip install flash-attn --no-build-isolation")
XFORMERS = Peer("xformers", "xformers.ops", "pip install xformers")
NATTEN = Peer("NATTEN", "natten", "pip install natten; see natten.org/install for wheels with its kernels")
TORCH_LINEAR_CROSS_ENTROPY = Peer(
    "linear_cross_entropy", "torch.nn.modules.linear_cross_entropy_options", "pip install 'torch>=2.13'"
)
LIGER = Peer("Liger", "liger_kernel.transformers.functional", "pip install liger-kernel")
CUT_CROSS_ENTROPY = Peer("Cut Cross-Entropy", "cut_cross_entropy", "pip install cut-cross-entropy")
TORCHVISION = Peer("torchvision", "torchvision", "pip install torchvision")
TORCHCODEC = Peer("TorchCodec", "torchcodec", "pip install 'torchcodec>=0.16'")
SIMPLEJPEG = Peer("simplejpeg", "simplejpeg", "pip install simplejpeg")
OPENCV = Peer("OpenCV", "cv2", "pip install opencv-python-headless")
DALI = Peer("DALI", "nvidia.dali", "pip install nvidia-dali-cuda130")
QUACK = Peer("QuACK", "quack.linear_cross_entropy", "pip install quack-kernels")


def compiler_absence(name: str) -> Absence | None:
    """torch.compile builds C++ when it runs, so a mode that uses it needs a compiler on the machine."""
    if shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        return None
    return Absence(name, "torch.compile found no C++ compiler", "install g++, or name a compiler in CXX")
