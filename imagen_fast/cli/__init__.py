"""The command line. torch is imported when a command runs, never to show help."""

from imagen_fast.cli.app import main

__all__ = ["main"]
