"""The operations of the window: the roofline picture and the table."""

from __future__ import annotations

from imagen_fast.profiling import numbers
from imagen_fast.profiling.page.html import Html, join, tag
from imagen_fast.profiling.page.roofline_chart import legend, roofline_chart
from imagen_fast.profiling.recording import Op, Peaks, Recording, Window
from imagen_fast.profiling.roofline import KINDS, placed, reached

# Rows that page.js leaves open; without it all are shown.
OPEN_ROWS = 20
COLUMNS = {
    "operation": "text",
    "kind": "text",
    "calls a step": "number",
    "time a step": "number",
    "share of the window": "number",
    "operations a step": "number",
    "bytes a step": "number",
    "of the peak": "number",
}


def operations_section(recording: Recording) -> Html:
    window, peaks = recording.window, recording.peaks
    title = tag("h2", "Operations", id="operations")
    if window is None or not window.ops:
        why = recording.absent.get("window", "no operation was noticed")
        return tag(
            "section", title, tag("p", f"Not recorded: {why}.", class_="quiet"), aria_labelledby="operations"
        )
    steps = f"{window.steps} step" + ("s" if window.steps != 1 else "")
    device, counted = ("GPU", "kernels") if window.device == "cuda" else (window.device.upper(), "operations")
    waits = (
        f", {window.syncs / window.steps:.3g} waits of the host for the GPU"
        if window.device == "cuda"
        else ""
    )
    told = (
        f"A window of {steps}, {numbers.text(window.seconds, 'seconds')} long, on the {device}: "
        f"{window.launches / window.steps:,.0f} {counted} a step{waits}. "
        "The profiler that sees every operation makes the window longer than steps outside it."
    )
    unplaced = len(window.ops) - len(placed(window.ops))
    return tag(
        "section",
        title,
        tag("p", told),
        tag("h3", "Roofline"),
        tag(
            "p",
            "Each point is an operation, its area the time it takes. Under the slope memory is the bound, "
            "under the level the arithmetic units are; the nearer to the roof, the less there is to gain.",
        ),
        roofline_chart(window, peaks),
        legend(),
        tag("p", _unplaced(unplaced, peaks), class_="quiet"),
        tag("h3", "All operations"),
        _table(window, peaks),
        aria_labelledby="operations",
    )


def _unplaced(many: int, peaks: Peaks | None) -> str:
    rates = [
        f"{name} {numbers.text(peak, 'operations/s')}"
        for name, peak in (peaks.operations if peaks else {}).items()
    ]
    if peaks and peaks.bandwidth:
        rates.append(f"memory {numbers.text(peaks.bandwidth, 'bytes/s')}")
    known = (
        f"Peaks of {peaks.device} ({peaks.source}): {', '.join(rates)}."
        if peaks and rates
        else "Peak: unknown."
    )
    without = f" Not in the picture, since their operations or bytes are not known: {many}." if many else ""
    return known + without


def _table(window: Window, peaks: Peaks | None) -> Html:
    heads = [
        tag(
            "th",
            name,
            scope="col",
            class_=kind,
            data_sort=kind,
            aria_sort="descending" if name == "time a step" else None,
        )
        for name, kind in COLUMNS.items()
    ]
    ops = sorted(window.ops, key=lambda op: -op.seconds)
    table = tag(
        "table",
        tag("thead", tag("tr", *heads)),
        tag("tbody", *(_row(op, window, peaks) for op in ops)),
        class_="sortable",
        data_open=OPEN_ROWS,
    )
    return join(
        tag("div", table, class_="scrolls", tabindex=0, role="region", aria_label="All operations"),
        tag("button", f"show all {len(ops)}", type="button", class_="more", hidden=True)
        if len(ops) > OPEN_ROWS
        else None,
    )


def _row(op: Op, window: Window, peaks: Peaks | None) -> Html:
    share = op.seconds / window.seconds if window.seconds else None
    bar = f"--share: {100 * (share or 0):.1f}%"
    share_cell = tag("td", numbers.text(share, "share"), class_="share", data_value=share, style=bar)
    nearest = reached(op, peaks)
    if nearest is None:
        peak = tag("td", numbers.UNKNOWN, class_="quiet", data_value=-1)
    elif nearest.share > 1:
        cached = ", so a cache gave some of it" if nearest.of == "memory" else ""
        why = f"{numbers.text(nearest.share, 'share')} of {nearest.of}{cached}"
        peak = tag("td", "refused:", tag("small", why), class_="quiet", data_value=-1)
    else:
        peak = tag(
            "td", numbers.text(nearest.share, "share"), tag("small", nearest.of), data_value=nearest.share
        )
    return tag(
        "tr",
        tag("th", op.name, scope="row"),
        tag(
            "td",
            tag("span", class_=f"swatch kind-{op.kind}", title=KINDS.get(op.kind, op.kind)),
            op.kind,
            class_="text",
        ),
        _cell(op.calls / window.steps, ""),
        _cell(op.seconds / window.steps, "seconds"),
        share_cell,
        _cell(op.operations and op.operations / window.steps, "operations"),
        _cell(op.bytes and op.bytes / window.steps, "bytes"),
        peak,
    )


def _cell(value: float | None, unit: str) -> Html:
    if value is None:
        return tag("td", numbers.UNKNOWN, class_="quiet", data_value=-1)
    whole = unit == "" and value == round(value)
    return tag("td", f"{value:,.0f}" if whole else numbers.text(value, unit), data_value=f"{value:.7g}")
