"""What others make of encoded images: decode, crop a given box, resize with antialiasing, mirror, normalise.

Each takes a batch of JPEGs and fills a float32 tensor [B, 3, H, W], which everyone keeps between calls, with
one thread.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagen_fast.data.sources import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Work:
    """Images, the box (left, top, right, bottom) of each, whether it is mirrored; the side that comes out."""

    images: Sequence[bytes]
    boxes: np.ndarray
    mirrored: np.ndarray
    side: int
    into: Tensor | None = None

    def out(self) -> Tensor:
        """What is to be filled."""
        return torch.empty(len(self.images), 3, self.side, self.side) if self.into is None else self.into

    def part(self, some: slice, into: Tensor) -> Work:
        """Of some images, whose views go `into` a tensor that is there."""
        return Work(self.images[some], self.boxes[some], self.mirrored[some], self.side, into)

    def tensors(self) -> list[Tensor]:
        """The files as PyTorch's decoders take them."""
        return [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in self.images]


Pipeline = Callable[[], Tensor]


def pillow(work: Work) -> Pipeline:
    """Pillow with torchvision's transforms, as ImageFolder's users have them."""
    from torchvision.transforms import functional

    out = work.out()

    def run() -> Tensor:
        for i, (data, box) in enumerate(zip(work.images, work.boxes.tolist(), strict=True)):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            left, top, right, bottom = box
            view = functional.resized_crop(
                image, top, left, bottom - top, right - left, [work.side, work.side]
            )
            if work.mirrored[i]:
                view = functional.hflip(view)
            out[i] = functional.normalize(functional.to_tensor(view), MEAN, STD, inplace=True)
        return out

    return run


def torchvision_v2(work: Work) -> Pipeline:
    """torchvision's own decoder, deprecated since 0.29, and its transforms of uint8 tensors."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return _with_v2(work, partial(decode_jpeg, mode=ImageReadMode.RGB))


def torchcodec_v2(work: Work) -> Pipeline:
    """The decoder that torchvision points to now, and torchvision's transforms."""
    from torchcodec.decoders import decode_jpeg

    return _with_v2(work, decode_jpeg)


def _with_v2(work: Work, decode: Callable[[Tensor], Tensor]) -> Pipeline:
    """`decode` makes RGB of a file's bytes, both uint8."""
    from torchvision.transforms.v2 import functional

    out, encoded = work.out(), work.tensors()

    def run() -> Tensor:
        for i, data in enumerate(encoded):
            view = functional.to_dtype(v2_view(work, i, decode(data)), torch.float32, scale=True)
            out[i] = functional.normalize(view, list(MEAN), list(STD), inplace=True)
        return out

    return run


def v2_view(work: Work, number: int, image: Tensor) -> Tensor:
    """The view of an image that is decoded already, by torchvision's second transforms."""
    from torchvision.transforms.v2 import functional

    left, top, right, bottom = work.boxes[number].tolist()
    view = functional.resized_crop(
        image, top, left, bottom - top, right - left, [work.side, work.side], antialias=True
    )
    return functional.horizontal_flip(view) if work.mirrored[number] else view


def opencv(work: Work) -> Pipeline:
    """OpenCV's decoder and its linear resize, which has no antialiasing."""
    import cv2

    return _with_cv2(work, lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


def simplejpeg_opencv(work: Work) -> Pipeline:
    """simplejpeg's decoder and OpenCV's resize."""
    import simplejpeg

    return _with_cv2(work, simplejpeg.decode_jpeg)


def _with_cv2(work: Work, decode: Callable[[bytes], np.ndarray]) -> Pipeline:
    """`decode` makes RGB [H, W, 3] of a file's bytes."""
    import cv2

    cv2.setNumThreads(1)
    out = work.out()
    scale = torch.tensor([1 / (255 * x) for x in STD])[:, None, None]
    shift = torch.tensor([-m / x for m, x in zip(MEAN, STD, strict=True)])[:, None, None]

    def run() -> Tensor:
        for i, (data, box) in enumerate(zip(work.images, work.boxes.tolist(), strict=True)):
            image = decode(data)
            left, top, right, bottom = box
            view = cv2.resize(
                image[top:bottom, left:right], (work.side, work.side), interpolation=cv2.INTER_LINEAR
            )
            if work.mirrored[i]:
                view = cv2.flip(view, 1)
            # Plane by plane in place: with numpy's broadcasting over pixels it took five times as long.
            out[i] = torch.from_numpy(view).permute(2, 0, 1)
            out[i].mul_(scale).add_(shift)
        return out

    return run


def dali(work: Work, threads: int = 1, gpu: bool = False) -> Pipeline:
    """DALI's pipeline, with the crop fused into the decoder; on a GPU with interpolated colours."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = [np.frombuffer(data, np.uint8) for data in work.images]
    corners, extents = work.boxes[:, :2], work.boxes[:, 2:] - work.boxes[:, :2]
    mirrored = [np.array(x, np.int32) for x in work.mirrored]  # DALI takes no scalar
    side, mean, std = work.side, [255 * x for x in MEAN], [255 * x for x in STD]
    decoder = {"device": "mixed", "jpeg_fancy_upsampling": True} if gpu else {"device": "cpu"}

    # One batch at a time, as the others have it: with batches made ahead a call would find its work done.
    @pipeline_def(
        batch_size=len(encoded),
        num_threads=threads,
        device_id=torch.cuda.current_device() if gpu else None,
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    def define():
        # The batches so far would come as an argument to a source that takes one.
        data, anchor, shape, mirror = (
            fn.external_source(source=iter(partial(list, given), None), batch=True)
            for given in (encoded, corners, extents, mirrored)
        )
        image = fn.decoders.image_slice(
            data, anchor, shape, axis_names="WH", normalized_anchor=False, normalized_shape=False, **decoder
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
        return torch.from_dlpack(made.as_tensor()) if gpu else torch.from_numpy(made.as_array())

    return run
