"""`python -m imagen_fast.integrations.kernels_package FOLDER` writes a kernel repository."""

import argparse
from pathlib import Path

from imagen_fast.errors import ImagenFastError
from imagen_fast.integrations.kernels_package import write


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the operations as a kernel repository.")
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    folder = parser.parse_args().folder
    try:
        write(folder)
    except ImagenFastError as error:
        parser.error(str(error))
    print(f"{folder} is ready to be loaded with kernels.get_local_kernel, or to be uploaded")


if __name__ == "__main__":
    main()
