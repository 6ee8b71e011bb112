"""Run the examples one after another, original and accelerated; note what failed and what was swapped.

In this one process, since importing all trainers takes longer than the runs.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(case: dict[str, Any], original: bool) -> str:
    """What went wrong; empty if nothing did."""
    folder = Path(case["folder"]) / ("original" if original else "accelerated")
    folder.mkdir(parents=True)
    words = [*case["words"], "--out", str(folder), "--losses", str(folder / "losses.txt")]
    sys.argv = [case["script"], *words, *(["--original"] if original else [])]
    # Of which a process has one, with the precision that its first run asked for.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        runpy.run_path(str(EXAMPLES / case["script"]), run_name="__main__")
    except Exception:
        return traceback.format_exc()
    return ""


def main() -> None:
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    sys.path.insert(0, str(EXAMPLES))  # as Python does for a script
    os.chdir(folder)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    for case in cases:
        case["errors"] = [run(case, original=True)]
    reached = sorted(name for name in sys.modules if name.startswith("imagen_fast."))

    import imagen_fast
    from imagen_fast.integrations.accelerate import accelerate

    for case in cases:
        swapped: list[str] = []

        def recorded(model: torch.nn.Module, case: Any = case, swapped: Any = swapped) -> Any:
            made = accelerate(model, trial=case["trial"])
            swapped.extend(one.kind for one in made.swapped)
            return made

        imagen_fast.accelerate = recorded
        case["errors"].append(run(case, original=False))
        case["swapped"] = swapped
    (folder / "results.json").write_text(json.dumps({"cases": cases, "reached": reached}))


if __name__ == "__main__":
    main()
