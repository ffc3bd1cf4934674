"""A finished study in one table and one picture: every setting against the first one.

python -m studies.table studies/seed.yaml [--picture docs/study.png]

It reads the study's experiments of HEAD, as `python -m flows.sweep` has left them. The difference,
its interval and p are those of `catdog compare FIRST OTHER --seeds`. A verdict stands if p,
corrected for the number of settings (Holm 1979), is at most 0.05; one that is so by itself only is
"alone".
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catdog.errors import CatdogError
from catdog.experiments.compare import Setting, compare, judge
from catdog.experiments.significance import ALPHA, Difference, holm
from flows.sweeps.study import parse, points
from tools import command_line

INK, FAINT, REAL, ALONE = "#1f4e79", "#9db7d0", "#b3402a", "#d99a3d"


@dataclass(frozen=True)
class Line:
    """One setting of a study."""

    label: str
    accuracies: list[float]
    """of each seed"""
    pflop: float
    """of one training"""
    difference: Difference | None = None
    """to the first setting; None for itself"""
    verdict: str = ""
    """of the difference; "alone" if it does not stand the correction for the number of settings"""


def lines_of(file: Path) -> list[Line]:
    """Return a line for each setting of the study in `file`; CatdogError if one was not run."""
    study = parse(file.read_text(encoding="utf-8"), str(file))
    names: dict[str, str] = {}
    for point in points(study):
        names.setdefault(point.label, point.name)
    settings = compare(list(names.values()), seeds=True).settings
    first, *others = (
        _line(label, setting, judge([settings[0], setting]).difference)
        for label, setting in zip(names, settings, strict=True)
    )
    return with_verdicts([replace(first, difference=None), *others])


def _line(label: str, setting: Setting, difference: Difference | None = None) -> Line:
    accuracies = [float(run.metrics["accuracy"]) for run in setting.runs]
    return Line(label, accuracies, float(setting.runs[0].metrics["train_pflop"]), difference)


def with_verdicts(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with their verdicts: Holm's correction is over all of them."""
    judged = [line for line in lines if line.difference is not None]
    corrected = dict(
        zip(
            [line.label for line in judged],
            holm([line.difference.p for line in judged if line.difference]),
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
    return f"{kind}, alone" if line.difference.p <= ALPHA else "no difference shown"


def markdown(lines: Sequence[Line]) -> str:
    """Return the table in Markdown."""
    against = f"against {lines[0].label}, points"
    head = f"| setting | accuracy | {against} | p | verdict | seeds needed | PFLOP |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for line in lines:
        mean, spread = statistics.fmean(line.accuracies), statistics.stdev(line.accuracies)
        against, p, seeds = "", "", ""
        if found := line.difference:
            low, high = _points(found.low), _points(found.high)
            against, p = f"{_points(found.difference)} ({low} to {high})", f"{found.p:.2g}"
            seeds = str(found.seeds_needed or "over 100")
        accuracy = f"{100 * mean:.1f} ± {100 * spread:.1f} %"
        rows.append(
            f"| {line.label} | {accuracy} | {against} | {p} | {line.verdict} | {seeds} "
            f"| {line.pflop:.3g} |"
        )
    return "\n".join(rows)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")  # a minus, as in docs/study.md


def draw(lines: Sequence[Line], title: str, file: Path) -> None:
    """Write a picture: a dot for each seed, and a bar at the mean, coloured by the verdict."""
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(lines)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, line in enumerate(lines):
        colour = {"better": REAL, "worse": REAL, "": INK, "no difference shown": INK}.get(
            line.verdict, ALONE
        )
        values = [100 * accuracy for accuracy in line.accuracies]
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.5, markeredgewidth=0)
        axes.plot([statistics.fmean(values)], [place], "|", color=colour, markersize=16)
    axes.axvline(100 * statistics.fmean(lines[0].accuracies), color=FAINT, linewidth=1)
    labels = [line.label for line in lines]
    axes.set_yticks(range(len(lines)), labels=labels, parse_math=False)
    axes.set_ylim(len(lines) - 0.5, -0.5)  # the first setting on top
    axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.5)
    axes.set_xlabel(f"test accuracy, %; differs from {lines[0].label}: red, or (alone) yellow")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    figure.savefig(file, metadata={"Software": None})


def main() -> None:
    """Parse the command line, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="the study")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to draw it")
    options = parser.parse_args()
    if not options.file.is_file():
        raise CatdogError(f"{options.file}: no such file")
    try:
        lines = lines_of(options.file)
    except CatdogError as error:
        missing = f"`python -m flows.sweep {options.file}` runs what is not there yet"
        raise CatdogError(f"{error}; {missing}") from None
    print(markdown(lines))
    if options.picture:
        draw(lines, str(options.file), options.picture)


if __name__ == "__main__":
    command_line.run(main)
