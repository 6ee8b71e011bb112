"""One colour for a cause and for a kind of operation, wherever they appear; on paper, and on a dark screen.

White stands out on those for paper, near black on the others (at least 4.5 to 1).
"""

from __future__ import annotations

CAUSES = {
    "data": ("#2470cc", "#5a9cec"),
    "decoding": ("#0a7d76", "#34bdb1"),
    "copying": ("#956000", "#d99a1c"),
    "launching": ("#c03a6b", "#ea7aa2"),
    "memory": ("#6350c4", "#a393f2"),
    "compute": ("#4b7700", "#93c13d"),
    "communication": ("#bd4810", "#f07e48"),
    "throttled": ("#cc3636", "#ee6f6f"),
    "paused": ("#5d5c66", "#a3a2ab"),
    "unknown": ("#74737b", "#8b8a92"),
}
# A kind looks like the cause that it stands for.
KINDS = {
    "matrix": CAUSES["compute"],
    "memory": CAUSES["memory"],
    "copy": CAUSES["copying"],
    "communication": CAUSES["communication"],
    "optimizer": CAUSES["launching"],
}


def styles() -> str:
    """Classes `cause-NAME` and `kind-NAME` that set `--colour`."""
    classes = {f"cause-{name}": both for name, both in CAUSES.items()}
    classes |= {f"kind-{name}": both for name, both in KINDS.items()}
    light, dark = (
        "\n".join(f".{name} {{ --colour: {both[which]}; }}" for name, both in classes.items())
        for which in (0, 1)
    )
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
