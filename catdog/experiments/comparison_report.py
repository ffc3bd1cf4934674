"""A comparison in words: for a terminal, for a pull request, or as JSON."""

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from catdog.experiments.compare import Changed, Comparison, DataChange, Setting
from catdog.experiments.significance import Difference

MOST_CHANGED = 10  # photos listed each way; the JSON form has all
WORDS = {"better": "better than", "worse": "worse than"}


@dataclass(frozen=True)
class Block:
    """A heading with lines under it, or with a table."""

    title: str
    lines: list[str]
    header: list[str]
    rows: list[list[str]]


def as_table(comparison: Comparison) -> RenderableType:
    """Return the comparison for a terminal."""
    parts: list[RenderableType] = [Text(verdict(comparison), style="bold")]
    for block in _blocks(comparison):
        parts += [Text(""), Text(block.title, style="bold"), *map(Text, block.lines)]
        if block.rows:
            table = Table()
            for name in block.header:
                table.add_column(Text(name))  # a Text, since brackets in a name are no markup
            for row in block.rows:
                table.add_row(*map(Text, row))
            parts.append(table)
    return Group(*parts)


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub's markdown, for a comment on a pull request."""
    parts = [f"**{_escape(verdict(comparison))}**"]
    for block in _blocks(comparison):
        parts.append(f"### {block.title}")
        if block.lines:
            parts.append("\n".join(f"- {_escape(line)}" for line in block.lines))
        if block.rows:
            rows = [block.header, ["---"] * len(block.header), *block.rows]
            escaped = [[_escape(cell) for cell in row] for row in rows]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in escaped))
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> str:
    """Return the comparison as JSON, with every photo that changed."""
    values = asdict(comparison)
    for setting, named in zip(comparison.settings, values["settings"], strict=True):
        named["runs"] = [
            {
                "name": run.name,
                "params": run.params,
                "metrics": run.metrics,
                "minutes": run.minutes,
            }
            for run in setting.runs
        ]
    for row in values["standings"]:
        row["name"] = comparison.settings[row["index"]].name
    return json.dumps({"verdict": verdict(comparison), **values}, indent=2, ensure_ascii=False)


def write(comparison: Comparison, form: str, console: Console) -> None:
    """Print the comparison as table, md or json."""
    if form == "table":
        console.print(as_table(comparison))
    else:
        text = as_markdown(comparison) if form == "md" else as_json(comparison) + "\n"
        console.file.write(text)


def verdict(comparison: Comparison) -> str:
    """Return the one sentence that answers the question."""
    names = [setting.name for setting in comparison.settings]
    if (found := comparison.difference) is None:
        best = [names[row.index] for row in comparison.standings if row.among_best]
        if len(best) == 1:
            return f"{best[0]} is better than all others on {comparison.photos:,} photos."
        return (
            f"{', '.join(best)}: no difference that {comparison.photos:,} photos can show; "
            f"{_others(len(names) - len(best))} worse than {best[0]}."
        )
    if found.kind == "no difference":
        return (
            f"No difference between {names[0]} and {names[1]} that {_shown_by(comparison)} can "
            f"show{_needed(found)}."
        )
    points = abs(100 * found.difference)
    return (
        f"{names[1]} is {WORDS[found.kind]} {names[0]}, by {points:.1f} points on "
        f"{_shown_by(comparison)}."
    )


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _others(count: int) -> str:
    return {0: "none is", 1: "one is"}.get(count, f"{count} are")


def _shown_by(comparison: Comparison) -> str:
    seeds = sorted({len(setting.runs) for setting in comparison.settings})
    said = "" if seeds == [1] else f" and {' to '.join(map(str, seeds))} seeds"
    return f"{comparison.photos:,} photos{said}"


def _needed(found: Difference) -> str:
    """Return what it would take to show a difference of this size."""
    ways = []
    if found.photos_needed:
        ways.append(f"about {_two_digits(found.photos_needed)} photos")
    if found.seeds_needed:
        ways.append(f"{found.seeds_needed} seeds of each")
    if ways:
        return f" (to show one of this size takes {', or '.join(ways)})"
    if found.difference:
        return " (with so few seeds no number of photos shows one of this size)"
    return ""


def _two_digits(number: int) -> str:
    """Return a number rounded to two digits: it is an estimate."""
    return f"{int(float(f'{number:.2g}')):,}"


def _blocks(comparison: Comparison) -> list[Block]:
    blocks = [_metrics(comparison.settings), _difference(comparison), _standings(comparison)]
    blocks += [_params(comparison), _data(comparison), _photos(comparison)]
    notes = list(comparison.notes)
    if comparison.code:
        notes.insert(0, f"code that differs: {', '.join(comparison.code)}")
    if any(len(setting.runs) == 1 for setting in comparison.settings):
        notes.append(
            "This is about the trained models; with another train.seed each setting gives another. "
            "--seeds judges the settings."
        )
    blocks.append(Block("Notes", notes, [], []))
    return [block for block in blocks if block.lines or block.rows]


def _metrics(settings: list[Setting]) -> Block:
    classes = list(
        dict.fromkeys(c for s in settings for r in s.runs for c in r.metrics.get("classes", {}))
    )
    rows = [["test photos", *(_figure(s, "photos", "{:,.0f}") for s in settings)]]
    rows.append(
        ["accuracy", *(_accuracy(s, [], "accuracy_low", "accuracy_high") for s in settings)]
    )
    for name in classes:
        cells = [_accuracy(s, ["classes", name], "low", "high") for s in settings]
        rows.append([f"accuracy of {name}", *cells])
    for key, title, form in (
        ("loss", "loss", "{:.4f}"),
        ("roc_auc", "ROC AUC", "{:.4f}"),
        ("calibration_error", "calibration error", "{:.4f}"),
        ("train_pflop", "training, PFLOP", "{:.4g}"),
    ):
        rows.append([title, *(_figure(s, key, form) for s in settings)])
    minutes = [[run.minutes for run in s.runs if run.minutes is not None] for s in settings]
    if any(minutes):
        cells = [f"{statistics.mean(m):.1f}" if m else "not kept" for m in minutes]
        rows.append(["training, minutes", *cells])
    names = [_headed(setting) for setting in settings]
    return Block("Metrics", [], ["each on its own test photos", *names], rows)


def _headed(setting: Setting) -> str:
    return setting.name if len(setting.runs) == 1 else f"{setting.name} ({len(setting.runs)} seeds)"


def _accuracy(setting: Setting, path: list[str], low: str, high: str) -> str:
    """Return an accuracy in percent: of one run with its interval, of several with their std."""
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


def _figure(setting: Setting, key: str, form: str) -> str:
    values = [run.metrics[key] for run in setting.runs if run.metrics.get(key) is not None]
    if not values:
        return "–"
    return _mean_and_std(values, form) if len(set(values)) > 1 else form.format(values[0])


def _mean_and_std(values: list[float], form: str) -> str:
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _difference(comparison: Comparison) -> Block:
    found = comparison.difference
    if found is None:
        return Block("", [], [], [])
    first, second = (setting.name for setting in comparison.settings)
    points = _signed(100 * found.difference)
    low, high = _signed(100 * found.low), _signed(100 * found.high)
    lines = [
        f"{second} − {first} on the {found.photos:,} photos that all judged: {points} "
        f"points (95 % interval {low} to {high}), p = {found.p:.2g} ({found.test})"
    ]
    if found.only_first is not None:
        lines.append(
            f"{found.only_first} photos went from right to wrong, {found.only_second} from wrong "
            "to right"
        )
    return Block("Difference", lines, [], [])


def _standings(comparison: Comparison) -> Block:
    rows = [
        [
            comparison.settings[row.index].name,
            f"{100 * row.accuracy:.1f} %",
            f"{row.p:.2g}" if place else "",
            "yes" if row.among_best else "no",
        ]
        for place, row in enumerate(comparison.standings)
    ]
    header = ["best first", "accuracy", "p against the first", "not worse than the best"]
    line = f"On the {comparison.photos:,} photos that all judged; p by Holm over all pairs"
    return Block("Order", [line] if rows else [], header, rows)


def _params(comparison: Comparison) -> Block:
    names = [setting.name for setting in comparison.settings]
    rows = [
        [key, *("" if value is None else str(value) for value in values)]
        for key, values in comparison.params.items()
    ]
    return Block("Params that differ", [], ["param", *names], rows)


def _data(comparison: Comparison) -> Block:
    return Block("Photos that differ", [_in_words(change) for change in comparison.data], [], [])


def _in_words(change: DataChange) -> str:
    if change.unknown:
        return f"{change.name}: other photos or splits; which ones is not known: {change.unknown}"
    said = [
        f"{count:,} {what}"
        for count, what in (
            (change.added, "added"),
            (change.removed, "removed"),
            (change.relabelled, "in another class"),
            *((count, f"moved {way}") for way, count in change.moved.items()),
        )
        if count
    ]
    return f"{change.name}: {', '.join(said)}"


def _photos(comparison: Comparison) -> Block:
    rows = [
        *_listed("right to wrong", comparison.right_to_wrong),
        *_listed("wrong to right", comparison.wrong_to_right),
    ]
    return Block("Photos judged otherwise", [], ["", "photo", "first", "second"], rows)


def _listed(way: str, photos: list[Changed]) -> list[list[str]]:
    rows = [[way, photo.path, photo.first, photo.second] for photo in photos[:MOST_CHANGED]]
    if (more := len(photos) - MOST_CHANGED) > 0:
        rows.append([way, f"and {more:,} more (--format json lists all)", "", ""])
    return rows


def _escape(text: str) -> str:
    """Return text that markdown shows as it is, but for code between backticks."""
    parts = text.replace("\n", " ").split("`")
    special = str.maketrans({mark: f"\\{mark}" for mark in "\\|*_~<>[]#"})
    if len(parts) % 2 == 0:
        return "\\`".join(part.translate(special) for part in parts)
    return "`".join(
        part.replace("|", "\\|") if odd % 2 else part.translate(special)
        for odd, part in enumerate(parts)
    )
