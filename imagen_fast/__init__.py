"""Learn image backbones from unlabelled pictures, fast."""

__version__ = "0.1.0"
