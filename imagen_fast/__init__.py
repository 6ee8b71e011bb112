"""Learn image backbones from unlabelled pictures, fast."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagen_fast.integrations.accelerate import accelerate as accelerate
    from imagen_fast.profiling.session import profile as profile

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Without a cost to whoever imports the package for something else.
    if name == "profile":
        from imagen_fast.profiling.session import profile

        return profile
    if name == "accelerate":
        from imagen_fast.integrations.accelerate import accelerate

        return accelerate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
