"""Triton kernels, one file a kernel. Importing the package needs neither Triton nor a GPU."""

if __name__ != "imagen_fast.kernels":
    raise ImportError(
        f"the folder kernels/ was imported as {__name__!r}: its name is imagen_fast.kernels, and any other "
        "would shadow another package; install the project and take its root off sys.path"
    )
