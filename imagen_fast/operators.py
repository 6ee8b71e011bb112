"""The names by which PyTorch knows our operators, in one place: a copy of this code registers its own."""

import torch

NAMESPACE = "imagen_fast"
registered = getattr(torch.ops, NAMESPACE)
