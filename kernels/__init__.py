"""Triton kernels, one file a kernel. Importing the package needs neither Triton nor a GPU."""

if "." not in __name__:
    raise ImportError(
        f"the folder kernels/ was imported as {__name__!r}: its name is imagen_fast.kernels, and one "
        "without a package would shadow another package; install the project and take its root off sys.path"
    )
