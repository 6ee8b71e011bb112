"""What others make of encoded images on a GPU: as `image_pipelines`, and what comes out is on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imagen_fast.benchmarks.peers.image_pipelines import MEAN, STD, Pipeline, Work


def torchvision_cuda(work: Work) -> Pipeline:
    """torchvision's decoder, deprecated since 0.29, and its transforms of uint8 tensors."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return _with_v2(work, partial(decode_jpeg, mode=ImageReadMode.RGB, device="cuda"))


def torchcodec_cuda(work: Work) -> Pipeline:
    """The decoder that torchvision points to now, and torchvision's transforms."""
    from torchcodec.decoders import decode_jpeg

    return _with_v2(work, partial(decode_jpeg, device="cuda"))


def _with_v2(work: Work, decode: Callable[[list[Tensor]], list[Tensor]]) -> Pipeline:
    """`decode` makes RGB on the device of the bytes of a whole batch; the transforms follow there."""
    from torchvision.transforms.v2 import functional

    encoded = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in work.images]
    levels = torch.empty(len(encoded), 3, work.side, work.side, dtype=torch.uint8, device="cuda")

    def run() -> Tensor:
        for i, (image, box) in enumerate(zip(decode(encoded), work.boxes.tolist(), strict=True)):
            left, top, right, bottom = box
            view = functional.resized_crop(
                image, top, left, bottom - top, right - left, [work.side, work.side], antialias=True
            )
            levels[i] = functional.horizontal_flip(view) if work.mirrored[i] else view
        pixels = functional.to_dtype(levels, torch.float32, scale=True)
        return functional.normalize(pixels, list(MEAN), list(STD), inplace=True)

    return run


def dali_cuda(work: Work, threads: int) -> Pipeline:
    """DALI's mixed decoder, with the crop fused into it, and its colours interpolated as libjpeg's."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = [np.frombuffer(data, np.uint8) for data in work.images]
    corners, extents = work.boxes[:, :2], work.boxes[:, 2:] - work.boxes[:, :2]
    mirrored = [np.array(x, np.int32) for x in work.mirrored]  # DALI takes no scalar
    side, mean, std = work.side, [255 * x for x in MEAN], [255 * x for x in STD]

    # One batch at a time, as the others have it: with batches made ahead a call would find its work done.
    @pipeline_def(
        batch_size=len(encoded),
        num_threads=threads,
        device_id=torch.cuda.current_device(),
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    def define():
        data, anchor, shape, mirror = (
            fn.external_source(source=iter(partial(list, given), None), batch=True)
            for given in (encoded, corners, extents, mirrored)
        )
        image = fn.decoders.image_slice(
            data,
            anchor,
            shape,
            device="mixed",
            axis_names="WH",
            normalized_anchor=False,
            normalized_shape=False,
            jpeg_fancy_upsampling=True,
        )
        image = fn.resize(
            image, resize_x=side, resize_y=side, interp_type=types.INTERP_LINEAR, antialias=True
        )
        return fn.crop_mirror_normalize(
            image, mirror=mirror, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std
        )

    pipeline = define()
    pipeline.build()

    def run() -> Tensor:
        (made,) = pipeline.run()
        return torch.from_dlpack(made.as_tensor())

    return run
