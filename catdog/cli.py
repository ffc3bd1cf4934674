"""The `catdog` command. Each stage of dvc.yaml is one of its subcommands."""

import gc
import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catdog import __version__, imported_code, stages
from catdog.errors import CatdogError
from catdog.paths import METRICS, MODELS, REPORTS
from catdog.support.printable import printable

BROKEN_PIPE = 141  # the exit code of a process ended by SIGPIPE: 128 + 13

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes that decode photos (default: one per core)."),
]


class PredictionFormat(StrEnum):
    """Output formats of `catdog predict`."""

    table = "table"
    csv = "csv"
    json = "json"


class ComparisonFormat(StrEnum):
    """Output formats of `catdog compare`."""

    table = "table"
    md = "md"
    json = "json"


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"catdog {__version__}")
        raise typer.Exit


@app.callback()
def catdog(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Train and use an image classifier for cats and dogs, or for any other class folders."""
    if not set(context.help_option_names) & set(sys.argv):
        imported_code.check()


@app.command()
def prepare(workers: Workers = None) -> None:
    """Stage 1: split the photos in data/raw and write them as arrays."""
    counts = stages.prepare(workers)
    _print(_counts_table(counts))


@app.command()
def train(
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of devices (default: all CUDA devices; 1 if precision is portable)."
        ),
    ] = None,
) -> None:
    """Stage 2: train the network, or resume an interrupted training run.

    On a CPU, --devices is the number of processes that share its cores. To train on several
    machines, run on each: torchrun --nnodes N --node-rank R --nproc-per-node GPUS --master-addr
    HOST --master-port PORT -m catdog train. HOST is the machine with node rank 0, which writes the
    model.
    """
    stages.train(devices)


@app.command()
def evaluate() -> None:
    """Stage 3: evaluate the trained model on the test set."""
    metrics = stages.evaluate()
    from catdog.evaluation.report import format_accuracy, format_percent

    accuracy = format_accuracy(metrics, "accuracy_low", "accuracy_high")
    balanced = format_percent(metrics["balanced_accuracy"])
    typer.echo(
        f"accuracy {accuracy}, balanced accuracy {balanced}; run `catdog results` for all metrics"
    )


@app.command()
def results() -> None:
    """Print the metrics of the last evaluation and the location of its plots.

    If they are of other params or photos than the current ones, a warning says so. If the last
    commit has results of another machine, also print how to make these the baseline.
    """
    from catdog.evaluation.report import metrics_tables
    from catdog.experiments import outdated, recovery

    try:
        metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatdogError(f"{METRICS}: no evaluation yet; {recovery.repro_advice()}") from None
    except ValueError as error:
        raise CatdogError(f"{METRICS}: invalid JSON ({error}); run `dvc repro`") from None
    try:
        tables = metrics_tables(metrics)
    except (KeyError, TypeError):  # metrics.json is in git, so older code may have written it
        raise CatdogError(
            f"{METRICS}: not written by this version of catdog; run `dvc repro`"
        ) from None
    for table in tables:
        _print(table)
    if reason := outdated.describe_outdated("evaluate"):
        stages.warn(f"{METRICS}: of {reason}; {recovery.repro_advice()}")
    page = REPORTS / "report.html"
    if page.is_file():
        Console().print(f"Plots: {REPORTS}/*.png; report: {page}")
    else:
        Console().print(f"{REPORTS}: no plots; {recovery.repro_advice()}", markup=False)
    if recovery.results_of_another_machine():
        Console(soft_wrap=True).print(
            recovery.describe_other_results(), markup=False, highlight=False
        )


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Photos, folders that contain photos, or - for a photo on standard input."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Folder of a trained model, or a revision (commit, branch, tag, experiment or "
            "`champion`) whose model is fetched with DVC."
        ),
    ] = str(MODELS),
    format: Annotated[
        PredictionFormat, typer.Option(help="Output format.")
    ] = PredictionFormat.table,
) -> None:
    """Predict the classes of photos. The exit code is 1 if a file could not be read."""
    folder = _model_folder(model)
    if folder == MODELS:
        from catdog.experiments import outdated

        if reason := outdated.describe_outdated("train"):
            stages.warn(f"{MODELS}: trained with {reason}; run `make repro` to train again")
    stages.compute_as(folder)
    from catdog.predict import run_predict

    try:
        with _stdout(as_utf8=format != PredictionFormat.table) as stream:
            errors = run_predict(paths, folder, format.value, stream)
            stream.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as in `catdog predict … | head`. Typer would exit with
        # code 1, which means that a file could not be read. Python flushes stdout again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    if errors:
        raise CatdogError(f"predict: could not read {errors} of the files; see their errors above")


def _stdout(*, as_utf8: bool) -> AbstractContextManager[TextIO]:
    """Return stdout, in UTF-8 in every locale if its output is for other programs.

    sys.stdout may be a wrapper of colorama, which removes terminal codes from file names.
    """
    if not as_utf8:
        return nullcontext(sys.stdout)
    return open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False)


def _model_folder(model: str) -> Path:
    """Return the folder of the model that `--model` names; fetch the model of a revision."""
    folder = Path(model)
    # Outside of a project, loading the model reports that the folder is missing.
    if folder.is_dir() or (folder == MODELS and not Path(".dvc").is_dir()):
        return folder
    from catdog.experiments import outputs

    return outputs.fetch_model(model)


@app.command()
def fetch(
    archive: Annotated[
        Path | None, typer.Option(help="Local zip archive, tar archive or folder.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of an archive to download (default: Microsoft's 25,000 cats and dogs)."
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Expected SHA-256 checksum of the download.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the photos in data/raw.")
    ] = False,
    class_level: Annotated[
        int | None,
        typer.Option(
            help="Level of the class folders in a path: 1 is the outermost folder, -1 the folder "
            "that contains the photo (default: detected)."
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Encoding of file names for which an archive does not state it, such as gbk or "
            "cp932 (default: detected)."
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Import photos: validate them, write them to data/raw and track them with DVC.

    Supported layouts: one folder per class, with any names and any folders in it, also in split
    folders (train/cat/1.jpg); PetImages/Cat/1.jpg (Microsoft); train/cat.1.jpg (Kaggle).
    """
    from catdog.ingest.fetch import fetch as run

    console = Console(soft_wrap=True)
    run(archive, url, sha256, replace, workers, console, class_level, encoding)


@app.command()
def champion(
    revision: Annotated[
        str | None,
        typer.Argument(help="Revision to promote (default: only print the current champion)."),
    ] = None,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Promote the model regardless of the comparison; the git tag records REASON.",
        ),
    ] = None,
) -> None:
    """Promote a revision's model to champion if it is significantly better than the current one.

    The models are compared on the test photos that both have evaluated, as in `catdog compare`. The
    champion is stored in git tags (by GTO): push them with `git push --tags`. For the model of an
    experiment, also run `dvc push`.
    """
    if revision is None and force is not None:
        raise CatdogError("--force: no revision given; pass the revision to promote")
    from catdog.experiments import registry

    if revision:
        from catdog.experiments.champion import promote

        current: registry.Champion | None = promote(revision, force)
    else:
        current = registry.current()
    if current is None:
        typer.echo("no champion yet; run `catdog champion REVISION` to promote one")
    else:
        typer.echo(f"champion: {current.version}, commit {current.commit[:7]}. {current.reason}")


@app.command()
def compare(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Commits, branches, tags, experiments, `champion` or `workspace`. A single "
            "revision is compared with the workspace (default: HEAD and the workspace)."
        ),
    ] = None,
    seeds: Annotated[
        bool,
        typer.Option(
            "--seeds",
            help="Compare settings: group all runs that differ only in train.seed.",
        ),
    ] = False,
    format: Annotated[
        ComparisonFormat, typer.Option(help="Output format.")
    ] = ComparisonFormat.table,
) -> None:
    """Compare revisions with the first one, and test whether the differences are significant."""
    from catdog.experiments.compare import compare as run
    from catdog.experiments.comparison_report import write

    write(run(revisions or [], seeds), format.value, Console())


@app.command(name="params")
def explain_params(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/params.md instead of a table.")
    ] = False,
) -> None:
    """Validate params.yaml and print the description of each key."""
    from catdog.params.docs import as_markdown, describe

    if markdown:
        typer.echo(as_markdown(), nl=False)
        return
    table = Table("key", "value", "description")
    for key in describe(stages.check_params()):
        table.add_row(key.key, "" if key.value is None else str(key.value), key.description)
    _print(table)


def _counts_table(counts: dict[str, dict[str, int]]) -> Table:
    """Return the numbers of photos by split and class as a table with a row for each class."""
    table = Table("class", show_footer=True)
    rows = [[row.get(name, 0) for row in counts.values()] for name in sorted(counts["train"])]
    columns = [*zip(*rows, strict=True), [sum(row) for row in rows]]
    for split, numbers in zip((*counts, "total"), columns, strict=True):
        table.add_column(split, footer=f"{sum(numbers):,}", justify="right")
    table.columns[0].footer = "total"
    for name, row in zip(sorted(counts["train"]), rows, strict=True):
        # "[indoor]" in a name is not markup
        table.add_row(escape(name), *(f"{number:,}" for number in (*row, sum(row))))
    return table


def _print(table: Table) -> None:
    Console().print(table)


def main() -> None:
    """Run the command line; a CatdogError becomes one line on stderr and its exit code."""
    # As stderr, for locales without UTF-8; sys.stdout may be colorama's wrapper, of another class.
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")
    try:
        app()
    except (CatdogError, OSError) as error:  # OSError: a full disk or a read-only folder
        _fail(str(error), error.exit_code if isinstance(error, CatdogError) else 1)
    finally:
        gc.freeze()  # skip the final collection at exit: most of a second once torch is imported


def _fail(message: str, exit_code: int = 1) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"catdog: {printable(message)}", markup=False)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
