"""Learn image backbones from unlabelled pictures, fast."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagen_fast.profiling.session import profile as profile

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `with imagen_fast.profile():` without a cost to whoever imports the package for something else.
    if name == "profile":
        from imagen_fast.profiling.session import profile

        return profile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
