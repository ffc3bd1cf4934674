"""The text of a comparison: the verdict in one sentence, and sections of lines and tables."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from catdog.experiments.compare import ChangedPrediction, Comparison, DataChange
from catdog.experiments.replicates import Setting
from catdog.experiments.significance import Difference

MOST_CHANGED = 10  # photos listed each way; the JSON format has all


@dataclass(frozen=True)
class Section:
    """A heading with lines under it, a table, or both."""

    title: str
    lines: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def verdict(comparison: Comparison) -> str:
    """Return the result in one sentence."""
    names = [setting.name for setting in comparison.settings]
    if (found := comparison.difference) is None:
        return _verdict_of_several(comparison)
    sample = _describe_sample(comparison)
    if found.kind == "no difference":
        return (
            f"No significant difference between {names[0]} and {names[1]} on {sample}"
            f"{_describe_needed(found)}."
        )
    points = abs(100 * found.difference)
    return (
        f"{names[1]} is significantly {found.kind} than {names[0]}, by {points:.1f} percentage "
        f"points on {sample}."
    )


def _verdict_of_several(comparison: Comparison) -> str:
    names = [setting.name for setting in comparison.settings]
    best = [names[row.index] for row in comparison.standings if row.among_best]
    sample = _describe_sample(comparison)
    if len(best) == 1:
        return f"{best[0]} is significantly better than all others on {sample}."
    worse = len(names) - len(best)
    others = {0: "", 1: f"; one other is significantly worse than {best[0]}"}.get(
        worse, f"; {worse} others are significantly worse than {best[0]}"
    )
    return f"No significant difference between {', '.join(best)} on {sample}{others}."


def _describe_sample(comparison: Comparison) -> str:
    seeds = sorted({len(setting.runs) for setting in comparison.settings})
    text = "" if seeds == [1] else f" and {' to '.join(map(str, seeds))} seeds"
    return f"{comparison.photos:,} photos{text}"


def _describe_needed(found: Difference) -> str:
    """Return the sample size that would detect a difference of this size."""
    sizes = []
    if found.photos_needed:
        sizes.append(f"about {_two_digits(found.photos_needed)} photos")
    if found.seeds_needed:
        sizes.append(f"{found.seeds_needed} seeds per setting")
    if sizes:
        return f"; detecting a difference of this size needs {', or '.join(sizes)}"
    if found.difference:
        return "; with this few seeds, no number of photos can detect a difference of this size"
    return ""


def _two_digits(number: int) -> str:
    """Return a number rounded to two digits: it is an estimate."""
    return f"{int(float(f'{number:.2g}')):,}"


def sections(comparison: Comparison) -> list[Section]:
    """Return the sections that have content."""
    found = [
        _metrics(comparison.settings),
        _difference(comparison),
        _ranking(comparison),
        _params(comparison),
        Section("Photos that differ", [_describe_change(change) for change in comparison.data]),
        _photos(comparison),
        Section("Notes", _notes(comparison)),
    ]
    return [section for section in found if section.lines or section.rows]


def _metrics(settings: list[Setting]) -> Section:
    classes = list(
        dict.fromkeys(c for s in settings for r in s.runs for c in r.metrics.get("classes", {}))
    )
    rows = [
        ["test photos", *(_format_metric(s, "photos", "{:,.0f}") for s in settings)],
        ["accuracy", *(_format_accuracy(s, [], "accuracy_low", "accuracy_high") for s in settings)],
    ]
    for name in classes:
        cells = [_format_accuracy(s, ["classes", name], "low", "high") for s in settings]
        rows.append([f"accuracy of {name}", *cells])
    for key, title, form in (
        ("loss", "loss", "{:.4f}"),
        ("roc_auc", "ROC AUC", "{:.4f}"),
        ("calibration_error", "calibration error", "{:.4f}"),
        ("train_pflop", "training, PFLOP", "{:.4g}"),
    ):
        rows.append([title, *(_format_metric(s, key, form) for s in settings)])
    minutes = [[run.minutes for run in s.runs if run.minutes is not None] for s in settings]
    if any(minutes):
        cells = [f"{statistics.mean(m):.1f}" if m else "unknown" for m in minutes]
        rows.append(["training, minutes", *cells])
    names = [s.name if len(s.runs) == 1 else f"{s.name} ({len(s.runs)} seeds)" for s in settings]
    return Section("Metrics", ["On all test photos of each revision"], ["metric", *names], rows)


def _format_accuracy(setting: Setting, path: list[str], low: str, high: str) -> str:
    """Return an accuracy in percent: with its interval for one run, else as mean ± std."""
    found = []
    for run in setting.runs:
        part: Any = run.metrics
        for key in path:
            part = part.get(key, {})
        if part.get("accuracy") is not None:
            found.append([part["accuracy"], part.get(low), part.get(high)])
    if not found:
        return "–"
    if len(setting.runs) == 1:
        accuracy, lower, upper = found[0]
        interval = f" ({100 * lower:.1f} to {100 * upper:.1f})" if None not in found[0] else ""
        return f"{100 * accuracy:.1f} %{interval}"
    return f"{_mean_and_std([100 * row[0] for row in found], '{:.1f}')} %"


def _format_metric(setting: Setting, key: str, form: str) -> str:
    values = [run.metrics[key] for run in setting.runs if run.metrics.get(key) is not None]
    if not values:
        return "–"
    return _mean_and_std(values, form) if len(set(values)) > 1 else form.format(values[0])


def _mean_and_std(values: list[float], form: str) -> str:
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _difference(comparison: Comparison) -> Section:
    found = comparison.difference
    if found is None:
        return Section("Difference")
    first, second = (setting.name for setting in comparison.settings)
    points, low, high = (
        f"{100 * share:+.1f}".replace("-", "−")
        for share in (found.difference, found.low, found.high)
    )
    lines = [
        f"{second} − {first} on the {found.photos:,} test photos evaluated by both: {points} "
        f"percentage points of accuracy (95 % interval {low} to {high}), p = {found.p:.2g} "
        f"({found.test})"
    ]
    if found.only_first is not None:
        lines.append(
            f"{found.only_first} photos changed from right to wrong, {found.only_second} from "
            "wrong to right"
        )
    return Section("Difference", lines)


def _ranking(comparison: Comparison) -> Section:
    rows = [
        [
            comparison.settings[row.index].name,
            f"{100 * row.accuracy:.1f} %",
            f"{row.p:.2g}" if place else "",
            "yes" if row.among_best else "no",
        ]
        for place, row in enumerate(comparison.standings)
    ]
    if not rows:
        return Section("Ranking")
    line = (
        f"On the {comparison.photos:,} test photos evaluated by all; p values with Holm's "
        "correction for all pairs"
    )
    header = ["revision", "accuracy", "p value vs. the best", "among the best"]
    return Section("Ranking", [line], header, rows)


def _params(comparison: Comparison) -> Section:
    names = [setting.name for setting in comparison.settings]
    rows = [
        [key, *("" if value is None else str(value) for value in values)]
        for key, values in comparison.params.items()
    ]
    return Section("Params that differ", header=["param", *names], rows=rows)


def _describe_change(change: DataChange) -> str:
    if change.unknown:
        return f"{change.name}: photos or splits differ; no details, because {change.unknown}"
    counts = [
        f"{count:,} {what}"
        for count, what in (
            (change.added, "added"),
            (change.removed, "removed"),
            (change.relabelled, "relabelled"),
            *((count, f"moved {way}") for way, count in change.moved.items()),
        )
        if count
    ]
    return f"{change.name}: {', '.join(counts)}"


def _photos(comparison: Comparison) -> Section:
    rows = [
        *_list_photos("right to wrong", comparison.right_to_wrong),
        *_list_photos("wrong to right", comparison.wrong_to_right),
    ]
    names = [f"predicted by {setting.name}" for setting in comparison.settings]
    return Section("Photos with changed predictions", header=["change", "photo", *names], rows=rows)


def _list_photos(change: str, photos: list[ChangedPrediction]) -> list[list[str]]:
    rows = [[change, photo.path, photo.first, photo.second] for photo in photos[:MOST_CHANGED]]
    if (more := len(photos) - MOST_CHANGED) > 0:
        rows.append([change, f"and {more:,} more (--format json lists all)", "", ""])
    return rows


def _notes(comparison: Comparison) -> list[str]:
    notes = list(comparison.notes)
    if comparison.code:
        notes.insert(0, f"code that differs: {', '.join(comparison.code)}")
    if any(len(setting.runs) == 1 for setting in comparison.settings):
        notes.append(
            "This compares single trained models, not settings: with another train.seed, a setting "
            "gives another model. Use --seeds to compare settings."
        )
    return notes
