"""What a busy reader needs: the verdict, what to change, the figures."""

from __future__ import annotations

from imagen_fast.profiling import numbers
from imagen_fast.profiling.findings import Change, Summary, Verdict
from imagen_fast.profiling.page.html import Html, tag
from imagen_fast.profiling.recording import Peaks, Recording
from imagen_fast.profiling.summary import prevailing
from imagen_fast.profiling.words import certainty, gain, sentence

NOT_RECORDED = "it was not recorded"


def verdict_section(recording: Recording, verdict: Verdict) -> Html:
    code = recording.exit_code
    failed = f"The program failed with exit code {code}; this is about what ran until then." if code else None
    return tag(
        "section",
        tag("h2", "Verdict", id="verdict"),
        tag("p", failed, class_="failed") if failed else None,
        tag("p", sentence(verdict), class_="verdict"),
        tag("p", "Confidence: ", tag("strong", certainty(verdict.confidence)), class_="confidence"),
        _sentences("Evidence", verdict.evidence),
        _sentences("What speaks against it", verdict.against),
        class_=f"hero cause-{verdict.bottleneck}",
        aria_labelledby="verdict",
    )


def _sentences(title: str, sentences: list[str]) -> Html | None:
    if not sentences:
        return tag("p", f"{title}: nothing that was recorded.", class_="quiet")
    return tag("div", tag("h3", title), tag("ul", *(tag("li", one) for one in sentences)))


def changes_section(changes: list[Change]) -> Html:
    items = [
        tag(
            "li",
            tag("h3", change.what),
            tag("p", change.why),
            tag("p", gain(change), class_="gain"),
        )
        for change in changes
    ]
    return tag(
        "section",
        tag("h2", "What is most likely to help", id="changes"),
        tag("ol", *items, class_="changes")
        if items
        else tag("p", "Nothing that was recorded suggests a change."),
        aria_labelledby="changes",
    )


def figures_section(recording: Recording, summary: Summary) -> Html:
    absent = recording.absent
    no_steps = absent.get("steps", NOT_RECORDED)
    work = _why_no_utilisation(recording)
    spread = (
        f"spread (IQR) {numbers.text(summary.step_spread, 'seconds')}"
        if summary.step_spread is not None
        else ""
    )
    peak = _peak(recording)
    no_images = no_steps if summary.step_seconds is None else "the images of a step could not be told"
    no_gpu = recording.samples.absent.get("gpus", "no GPU's energy was recorded")
    rows = [
        ("images_per_second", "throughput", "images/s", f"{summary.steps:,} steps in all", no_images),
        ("step_seconds", "step time, median", "seconds", spread, no_steps),
        ("mfu", "model FLOP utilisation (MFU)", "share", peak, work),
        ("hfu", "hardware FLOP utilisation (HFU)", "share", peak, work),
        ("joules_per_image", "energy an image, GPUs", "J", "", no_gpu),
        ("operations_per_step", "operations a step", "operations", "", absent.get("window", NOT_RECORDED)),
    ]
    tiles = []
    for name, title, unit, note, missing in rows:
        value = getattr(summary, name)
        refused = summary.refused.get(name)
        shown = "refused" if refused else numbers.text(value, unit)
        note = refused or (missing if value is None else note)
        class_ = "tile missing" if refused or value is None else "tile"
        tiles.append(
            tag("div", tag("dt", title), tag("dd", shown), tag("dd", note, class_="note"), class_=class_)
        )
    known = {name for name, *_ in rows}
    others = [
        tag("li", f"{name.replace('_', ' ')}: {why}")
        for name, why in summary.refused.items()
        if name not in known
    ]
    return tag(
        "section",
        tag("h2", "Figures", id="figures"),
        tag("dl", *tiles, class_="tiles"),
        tag("div", tag("h3", "Refused, since it cannot be true"), tag("ul", *others)) if others else None,
        aria_labelledby="figures",
    )


def _peak(recording: Recording) -> str:
    peaks, dtype = recording.peaks, prevailing(recording.window.ops if recording.window else [])
    if peaks is None or dtype not in peaks.operations:
        return "the peak is unknown"
    source = f", {peaks.source}" if peaks.source else ""
    return f"of {numbers.text(peaks.operations[dtype], 'operations/s')} ({dtype}{source})"


def _why_no_utilisation(recording: Recording) -> str:
    if recording.window is None:
        return recording.absent.get("window", "no operations were counted")
    if not (recording.peaks or Peaks("")).operations:
        device = recording.peaks.device if recording.peaks else "this device"
        return f"the peak of {device} is unknown"
    return "the operations or the steps are not known"
