"""Steps and machine over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imagen_fast.profiling import numbers
from imagen_fast.profiling.page.html import Html, join, tag
from imagen_fast.profiling.page.line_chart import Line, line_chart
from imagen_fast.profiling.quantities import GPU, HOST, Quantity
from imagen_fast.profiling.recording import Gpu, Recording, Series, Steps
from imagen_fast.profiling.thinning import numbers as as_numbers

# A first step that compiles takes a hundred times as long as the others: it must not flatten them.
BEYOND = 3.0
# What a quantity cannot exceed, by the names of a GPU's facts.
LIMITS = {"power": "power_limit", "memory": "memory_bytes", "program_memory": "memory_bytes"}


def steps_section(recording: Recording) -> Html:
    charts = [_steps_of(steps, at, recording) for at, steps in enumerate(recording.steps) if steps.end]
    why = recording.absent.get("steps", "no steps were noticed")
    first, *others = charts or [tag("p", f"Not recorded: {why}.", class_="quiet")]
    return tag(
        "section",
        tag("h2", "Steps over time", id="steps"),
        _zoom_hint() if charts else None,
        first,
        _folded(f"the other {len(others)} processes", others) if others else None,
        aria_labelledby="steps",
    )


def _zoom_hint() -> Html:
    return tag(
        "p",
        "Drag over a chart to zoom all of them; ",
        tag("button", "show all", type="button", class_="reset"),
        " or Escape goes back.",
        class_="quiet script-only",
    )


def _steps_of(steps: Steps, at: int, recording: Recording) -> Html:
    seconds = as_numbers(steps.seconds)
    highest, usual = float(np.nanmax(seconds)), float(np.nanquantile(seconds, 0.98))
    top = 1.3 * usual if highest > BEYOND * usual else None
    cut = int((seconds > top).sum()) if top else 0
    median = numbers.text(float(np.nanmedian(seconds)), "seconds")
    told = (
        f"{len(seconds) * steps.every:,} steps, median {median}, longest {numbers.text(highest, 'seconds')}"
    )
    source = f"steps.{at}."
    time, (data, data_cpu, taken) = _broken(steps, steps.data, steps.data_cpu, steps.seconds)
    lines = [
        Line("waiting for data", data, f"{source}data", "cause-data", filled=True),
        Line("processor time spent on preparing it", data_cpu, f"{source}data_cpu", "cause-decoding"),
        Line("step", taken, f"{source}seconds", "ink"),
    ]
    sparse = f" One of {steps.every} steps is kept." if steps.every > 1 else ""
    delayed = ""
    if steps.delayed:
        share = numbers.text(steps.delayed, "share")
        delayed = f" For {share} of the time the training thread could have run, but had no processor."
    # What else would end a step goes without saying.
    ended = " A step ends with its batch: there is no optimizer." if steps.boundary == "batch" else ""
    beyond = f" {cut} beyond the top of the chart." if cut else ""
    which = f"Process {steps.pid}, rank {steps.rank} of {steps.world}: " if steps.world > 1 else ""
    workers = "" if steps.workers is None else f" Workers that prepare batches: {steps.workers}."
    return tag(
        "figure",
        tag("figcaption", f"{which}{told}.{sparse}{beyond}{ended}{workers}{delayed}"),
        line_chart(
            "Seconds of each step and of its waiting for data",
            f"{told}.",
            time,
            f"{source}end",
            lines,
            "seconds",
            _span(recording),
            "wide",
            top=top,
        ),
        tag(
            "ul",
            *(tag("li", tag("span", class_=f"swatch {line.colour}"), line.title) for line in reversed(lines)),
            class_="legend",
        ),
    )


def _broken(steps: Steps, *series: Sequence[float]) -> tuple[list[float], list[list[float]]]:
    """Time and values, with nothing in between where steps are left out: the profiler itself was busy."""
    end, seconds = as_numbers(steps.end), as_numbers(steps.seconds)
    idle = end[1:] - seconds[1:] * steps.every - end[:-1]
    pauses = 1 + np.flatnonzero(idle > BEYOND * np.nanmedian(seconds) * steps.every)
    time = np.insert(end, pauses, (end[pauses - 1] + end[pauses]) / 2).tolist()
    return time, [np.insert(as_numbers(of), pauses, np.nan).tolist() for of in series]


def _span(recording: Recording) -> float:
    """All charts share one axis: the whole recording."""
    ends = [recording.samples.time[-1:], *(steps.end[-1:] for steps in recording.steps)]
    return max([recording.seconds, *(last for end in ends for last in end)]) or 1.0


def machine_section(recording: Recording) -> Html:
    samples, span = recording.samples, _span(recording)
    host = _multiples(samples.host, HOST, "samples.host.", samples.time, span, {})
    parts = [tag("h3", "Host"), host if samples.time else tag("p", "Nothing was sampled.", class_="quiet")]
    if not samples.gpus:
        parts += [
            tag("h3", "GPU"),
            tag("p", f"None: {samples.absent.get('gpus', 'none was found')}.", class_="quiet"),
        ]
    if len(samples.gpus) > 1:
        parts += [tag("h3", "GPUs side by side, medians"), _side_by_side(samples.gpus)]
    for at, gpu in enumerate(samples.gpus):
        name = f"GPU {gpu.index}: {gpu.name}"
        limits = {quantity: gpu.facts[fact] for quantity, fact in LIMITS.items() if gpu.facts.get(fact)}
        source = f"samples.gpus.{at}.series."
        charts = join(_reasons(gpu), _multiples(gpu.series, GPU, source, samples.time, span, limits))
        parts += [tag("h3", name), charts] if at == 0 else [_folded(name, [charts])]
    return tag(
        "section",
        tag("h2", "Machine over time", id="machine"),
        *parts,
        aria_labelledby="machine",
    )


def _folded(title: str, parts: list[Html]) -> Html:
    return tag("details", tag("summary", title), *parts)


def _multiples(
    series: Series,
    known: dict[str, Quantity],
    source: str,
    time: list[float],
    span: float,
    limits: dict[str, float],
) -> Html:
    """A small chart for every quantity that changed; one sentence for those that did not."""
    charts, constant = [], []
    # In the order of `quantities`, which is that of importance.
    for name in sorted(series, key=lambda name: list(known).index(name) if name in known else len(known)):
        quantity = known.get(name, Quantity(name.replace("_", " "), ""))
        values = as_numbers(series[name])
        values = values[np.isfinite(values)]
        if not len(values):
            constant.append(f"{quantity.title}: could not be read")
        elif values.min() == values.max():
            constant.append(f"{quantity.title} {numbers.text(float(values[0]), quantity.unit)}")
        else:
            lines = [Line(quantity.title, series[name], source + name)]
            charts.append(_multiple(quantity, values, time, lines, span, limits.get(name)))
    same = f"The same throughout: {'; '.join(constant)}." if constant else None
    return join(
        tag("div", *charts, class_="multiples") if charts else None,
        tag("p", same, class_="quiet") if same else None,
    )


def _multiple(
    quantity: Quantity,
    values: np.ndarray,
    time: list[float],
    lines: list[Line],
    span: float,
    limit: float | None,
) -> Html:
    lowest, middle, highest = (
        numbers.text(float(value), quantity.unit) for value in np.quantile(values, (0, 0.5, 1))
    )
    bounded = f" Limit {numbers.text(limit, quantity.unit)}." if limit else ""
    told = f"Lowest {lowest}, median {middle}, highest {highest}.{bounded}"
    chart = line_chart(
        quantity.title, told, time, "samples.time", lines, quantity.unit, span, "small", limit=limit
    )
    return tag(
        "figure",
        tag("figcaption", quantity.title, tag("span", "median ", tag("strong", middle), f", to {highest}")),
        chart,
    )


def _reasons(gpu: Gpu) -> Html:
    active = {name: share for name, share in gpu.throttle_reasons.items() if share > 0}
    if not active:
        return tag("p", "No reason for throttling was reported.", class_="quiet")
    told = "; ".join(
        f"{name.replace('_', ' ')} in {numbers.text(share, 'share')} of the samples"
        for name, share in sorted(active.items(), key=lambda item: -item[1])
    )
    return tag("p", tag("strong", "Throttled: "), f"{told}.")


def _side_by_side(gpus: list[Gpu]) -> Html:
    rows = []
    for name, quantity in GPU.items():
        medians = [_median(gpu.series.get(name)) for gpu in gpus]
        if any(median is not None for median in medians) and name != "energy":
            cells = (tag("td", "–" if one is None else numbers.text(one, quantity.unit)) for one in medians)
            rows.append(tag("tr", tag("th", quantity.title, scope="row"), *cells))
    heads = (tag("th", f"GPU {gpu.index}", scope="col") for gpu in gpus)
    table = tag(
        "table",
        tag("thead", tag("tr", tag("th", "quantity", scope="col"), *heads)),
        tag("tbody", *rows),
    )
    return tag("div", table, class_="scrolls", tabindex=0, role="region", aria_label="GPUs side by side")


def _median(values: list[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return float(np.median(known)) if known else None
