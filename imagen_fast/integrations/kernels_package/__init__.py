"""The operations as a kernel repository, which Hugging Face's `kernels` loads without this package."""

from imagen_fast.integrations.kernels_package.repository import write

__all__ = ["write"]
