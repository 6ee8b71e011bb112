"""The demo's tables."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from rich import get_console
from rich.table import Table

if TYPE_CHECKING:
    from imagen_fast.tasks.demo import DemoResult


def show(result: DemoResult) -> None:
    table = Table(title=f"digits, {result.labels_per_class} labels a class", title_justify="left")
    table.add_column("classifier")
    table.add_column("accuracy, mean", justify="right")
    table.add_column("lowest to highest", justify="right")
    table.add_column("seconds a run", justify="right")
    for name, values in result.accuracies.items():
        spread = f"{min(values):.1%} to {max(values):.1%}"
        table.add_row(name, f"{mean(values):.1%}", spread, f"{mean(result.seconds[name]):.1f}")
    console = get_console()
    console.print(table)
    likelihood = Table(title="how likely held-out digits are found", title_justify="left")
    likelihood.add_column("model")
    likelihood.add_column("bits per dimension", justify="right")
    for name, bits in result.bits_per_dim.items():
        likelihood.add_row(name, f"{bits:.3f}")
    console.print(likelihood)
    console.print(
        f"one pretraining, {result.pretrain_seconds:.1f} s; then {len(result.seeds)} seeds of each training, "
        f"accuracy of the last weights on the fifth of the digits that no training saw\n"
        f"the pixel transformer learned for {result.causal_seconds:.1f} s; completion.png shows digits whose "
        f"lower half it drew\n"
        f"pictures and demo.json are in {result.folder}",
        highlight=False,
    )
