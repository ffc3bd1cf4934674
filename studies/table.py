"""A finished study as a table and a plot: every setting compared with the first one.

python -m studies.table studies/seed.yaml [--plot docs/study.png]

It reads the study's experiments of HEAD, which `python -m flows.sweep` creates. The difference, its
interval and p are those of `catdog compare FIRST OTHER --seeds`. A difference is significant if p
is at most 0.05 after correction for the number of settings (Holm 1979), and is marked "uncorrected"
if p is at most 0.05 only before it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catdog.errors import CatdogError
from catdog.experiments.compare import compare, compare_results
from catdog.experiments.replicates import Setting
from catdog.experiments.significance import ALPHA, Difference, holm
from flows.sweeps.study import parse, points
from tools import command_line

PLAIN, FAINT, SIGNIFICANT, UNCORRECTED = "#1f4e79", "#9db7d0", "#b3402a", "#d99a3d"
NO_DIFFERENCE = "no significant difference"
COLOURS = {"": PLAIN, NO_DIFFERENCE: PLAIN, "better": SIGNIFICANT, "worse": SIGNIFICANT}


@dataclass(frozen=True)
class Line:
    """One row of the table: a setting of the study."""

    label: str
    accuracies: list[float]
    """one per seed"""
    pflop: float
    """of one training run"""
    difference: Difference | None = None
    """from the first setting; None for the first itself"""
    verdict: str = ""
    """on the difference; "uncorrected" if significant only without Holm's correction"""


def lines_of(file: Path) -> list[Line]:
    """Return a line per setting of the study in `file`; CatdogError if one has no experiments."""
    study = parse(file.read_text(encoding="utf-8"), str(file))
    names: dict[str, str] = {}
    for point in points(study):
        names.setdefault(point.label, point.name)
    settings = compare(list(names.values()), seeds=True).settings
    first, *others = (
        _line(label, setting, compare_results([settings[0], setting]).difference)
        for label, setting in zip(names, settings, strict=True)
    )
    return with_verdicts([replace(first, difference=None), *others])


def _line(label: str, setting: Setting, difference: Difference | None = None) -> Line:
    accuracies = [float(run.metrics["accuracy"]) for run in setting.runs]
    return Line(label, accuracies, float(setting.runs[0].metrics["train_pflop"]), difference)


def with_verdicts(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with their verdicts, by Holm's correction over all of them."""
    compared = [line for line in lines if line.difference is not None]
    corrected = dict(
        zip(
            [line.label for line in compared],
            holm([line.difference.p for line in compared if line.difference]),
            strict=True,
        )
    )
    return [replace(line, verdict=_verdict(line, corrected.get(line.label, 1.0))) for line in lines]


def _verdict(line: Line, p: float) -> str:
    if line.difference is None:
        return ""
    kind = "better" if line.difference.difference > 0 else "worse"
    if p <= ALPHA:
        return kind
    return f"{kind} (uncorrected)" if line.difference.p <= ALPHA else NO_DIFFERENCE


def markdown(lines: Sequence[Line]) -> str:
    """Return the table in Markdown."""
    difference = f"difference from {lines[0].label}, percentage points"
    head = f"| setting | accuracy | {difference} | p | verdict | seeds needed | PFLOP |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for line in lines:
        mean, spread = statistics.fmean(line.accuracies), statistics.stdev(line.accuracies)
        difference, p, seeds = "", "", ""
        if found := line.difference:
            low, high = _points(found.low), _points(found.high)
            difference, p = f"{_points(found.difference)} ({low} to {high})", f"{found.p:.2g}"
            seeds = str(found.seeds_needed or "over 100")
        accuracy = f"{100 * mean:.1f} ± {100 * spread:.1f} %"
        rows.append(
            f"| {line.label} | {accuracy} | {difference} | {p} | {line.verdict} | {seeds} "
            f"| {line.pflop:.3g} |"
        )
    return "\n".join(rows)


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")  # a minus sign, as in docs/study.md


def draw(lines: Sequence[Line], title: str, file: Path) -> None:
    """Plot a dot per seed and a bar at the mean, coloured by the verdict; write it to `file`."""
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(lines)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, line in enumerate(lines):
        colour = COLOURS.get(line.verdict, UNCORRECTED)
        values = [100 * accuracy for accuracy in line.accuracies]
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.5, markeredgewidth=0)
        axes.plot([statistics.fmean(values)], [row], "|", color=colour, markersize=16)
    axes.axvline(100 * statistics.fmean(lines[0].accuracies), color=FAINT, linewidth=1)
    labels = [line.label for line in lines]
    axes.set_yticks(range(len(lines)), labels=labels, parse_math=False)
    axes.set_ylim(len(lines) - 0.5, -0.5)  # the first setting on top
    axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.5)
    axes.set_xlabel(f"test accuracy, %; red: differs from {lines[0].label}, yellow: uncorrected")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    figure.savefig(file, metadata={"Software": None})


def main() -> None:
    """Parse the command line, print the table and draw the plot."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="study file, such as studies/seed.yaml"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a plot to this file")
    options = parser.parse_args()
    if not options.file.is_file():
        raise CatdogError(f"{options.file}: no such file; pass a study file from studies/")
    try:
        lines = lines_of(options.file)
    except CatdogError as error:
        command = f"python -m flows.sweep {options.file}"
        raise CatdogError(f"{error}; run the missing points with `{command}`") from None
    print(markdown(lines))
    if options.plot:
        draw(lines, str(options.file), options.plot)


if __name__ == "__main__":
    command_line.run(main)
