"""What `tasks.doctor` found out, as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(report: dict[str, Any]) -> None:
    """Print the report of `tasks.doctor.examine`."""
    console = Console()
    machine = Table(title="machine", title_justify="left", show_header=False)
    machine.add_column(style="bold")
    machine.add_column(overflow="fold")
    for name, value in report["machine"].items():
        machine.add_row(name.replace("_", " "), value)
    console.print(machine)

    packages = Table(title="optional packages", title_justify="left")
    for heading in ("package", "version", "for"):
        packages.add_column(heading)
    for package in report["packages"]:
        packages.add_row(package["name"], package["version"] or "not installed", package["purpose"])
    console.print(packages)

    ops = Table(title="operations", title_justify="left")
    for heading in ("operation", "device", "types", "back-end", "why not a faster one"):
        ops.add_column(heading, overflow="fold")
    # Types of one outcome share a row.
    rows: dict[tuple[str, ...], list[str]] = {}
    for op in report["operations"]:
        why = "\n".join(f"{name}: {reason}" for name, reason in op["refused"].items())
        outcome = op["op"], op["device"], op["backend"] or "none", why or "it is the fastest"
        rows.setdefault(outcome, []).append(op["dtype"])
    for (name, device, backend, why), types in rows.items():
        ops.add_row(name, device, " ".join(types), backend, why)
    console.print(ops)
