"""`python -m imagen_fast` is `imagen-fast`."""

from imagen_fast.cli import main

if __name__ == "__main__":
    main()
