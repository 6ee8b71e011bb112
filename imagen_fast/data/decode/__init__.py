"""Encoded bytes to pixels: one picture at a time, or a batch of views ready for a model."""

from imagen_fast.data.decode.batch import DecodedBatch, decode_batch
from imagen_fast.data.decode.picture import Box, DecodedPicture, Picture, decode_image, open_image

__all__ = [
    "Box",
    "DecodedBatch",
    "DecodedPicture",
    "Picture",
    "decode_batch",
    "decode_image",
    "open_image",
]
