"""What this machine and this installation can do, for `imagen-fast doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

from imagen_fast import __version__, native
from imagen_fast.errors import BackendUnavailable
from imagen_fast.ops.doctor import examine_operations, no_cuda_because
from imagen_fast.train import bf16_is_fast

OPTIONAL = {
    "scikit-learn": "digits, photos, linear probe, classification report",
    "scikit-image": "photos",
    "matplotlib": "pictures",
    "tensorboard": "the TensorBoard log",
    "wandb": "the Weights & Biases log",
    "timm": "benchmarks and conversion",
    "transformers": "benchmarks and conversion",
    "torchvision": "benchmarks",
    "pytest-benchmark": "benchmarks",
}


def examine() -> dict[str, Any]:
    """`machine` (facts in words), `packages` (optional ones), `operations` (see `ops.doctor.Finding`)."""
    return {
        "imagen_fast": __version__,
        "machine": _machine(),
        "packages": [
            {"name": name, "version": _version(name), "purpose": purpose}
            for name, purpose in OPTIONAL.items()
        ],
        "operations": examine_operations(),
    }


def _machine() -> dict[str, str]:
    cpu = torch.device("cpu")
    features = [name for name, there in native.cpu_features().items() if there]
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton") or "not installed",
        "system": f"{platform.system()} {platform.machine()}",
        "processors": f"{os.cpu_count()}, PyTorch uses {torch.get_num_threads()}",
        "cpu_features": ", ".join(features) or "none that the kernels use",
        "native_extension": _native(),
        "decoding_on_cpu": _cpu_decoder(),
        "bf16_on_cpu": "fast" if bf16_is_fast(cpu) else "slow: auto precision takes fp32",
    }
    if why := no_cuda_because():
        facts["cuda"] = f"none: {why}"
        return facts
    facts["decoding_on_gpu"] = _gpu_decoder()
    for number in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(number)
        facts[f"cuda_{number}"] = (
            f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {p.multi_processor_count} SMs, "
            f"sm_{p.major}{p.minor}, bf16 {'fast' if bf16_is_fast(torch.device('cuda', number)) else 'slow'}"
        )
    return facts


def _native() -> str:
    built = native.build_info()
    if not built["cpu"]:
        return f"not there: {native.unavailable_because()}"
    parts = ", ".join(name for name in ("openmp", "jpeg", "cuda") if built[name]) or "no extras"
    text = f"built with {built['compiler']}, uses {built['instruction_set']}; has {parts}"
    return f"{text}; left out: {built['left_out']}" if built["left_out"] else text


def _cpu_decoder() -> str:
    if not native.jpeg_available():
        return "Pillow"
    ours = native.build_info()["instruction_set"] != "portable"
    return ("our own for plain JPEGs, " if ours else "") + "libjpeg-turbo, Pillow for the rest"


def _gpu_decoder() -> str:
    if why := native.no_gpu_decoder_because():
        return f"none: {why}"
    try:
        engine = native.gpu_decoder_has_engine(torch.cuda.current_device())
    except BackendUnavailable as error:
        return f"none: {error}"
    return f"nvJPEG, {'on the JPEG engine' if engine else 'without a JPEG engine'}, {native.find_nvjpeg()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
