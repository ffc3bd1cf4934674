"""The `catdog` command. Each stage of dvc.yaml is one of its subcommands."""

import gc
import json
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catdog import params
from catdog.errors import CatdogError
from catdog.paths import (
    DOWNLOADS,
    HISTORY,
    METRICS,
    MODELS,
    PREPARED,
    QUARANTINE,
    RAW,
    REPORTS,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn to tell cats from dogs, or any other folders of photos apart.",
)

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that decode photos; left out, one a core."),
]


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    csv = "csv"
    json = "json"


class Form(StrEnum):
    """How a comparison is written."""

    table = "table"
    md = "md"
    json = "json"


@app.command()
def prepare(workers: Workers = None) -> None:
    """Stage 1: split the photos in data/raw and pack them into arrays."""
    from catdog.preparation.prepare import prepare as run

    counts = run(_load_params().prepare, RAW, PREPARED, workers)
    _print(_counts_table(counts))


@app.command()
def train(
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="On how many to train; left out, on all CUDA devices."),
    ] = None,
) -> None:
    """Stage 2: train on the packed arrays; goes on where a killed training stopped.

    On a CPU --devices is the number of processes that share its cores. For several machines, start
    on each: torchrun --nnodes N --node-rank R --nproc-per-node GPUS --master-addr HOST
    --master-port PORT -m catdog train. Machine 0 is HOST, and gets the model.
    """
    if "RANK" in os.environ:  # one of several processes, which a launcher has started
        from catdog.training.launch import work_as_rank

        work_as_rank(_train)
        return
    _load_params()
    from catdog.model.devices import how_many

    if (count := how_many(devices)) > 1:
        from catdog.training.launch import launch

        launch(count)
    else:
        _train()


def _train() -> None:
    settings = _load_params()
    from catdog.training.train import train as run

    run(settings, PREPARED, MODELS, HISTORY)


@app.command()
def evaluate() -> None:
    """Stage 3: judge the trained model on the test photos."""
    settings = _load_params()
    from catdog.evaluation.evaluate import evaluate as run
    from catdog.evaluation.report import in_words

    metrics = run(settings, PREPARED, MODELS, METRICS, REPORTS, HISTORY)
    words = in_words(metrics, "accuracy_low", "accuracy_high")
    typer.echo(f"accuracy {words}; `catdog results` says more")


@app.command()
def results() -> None:
    """Print the metrics of the last evaluation, and where its pictures lie."""
    from catdog.evaluation.report import results_table

    try:
        metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatdogError(f"{METRICS}: nothing evaluated yet; run `dvc repro`") from None
    except ValueError as error:
        raise CatdogError(f"{METRICS}: not valid JSON ({error}); run `dvc repro`") from None
    _print(results_table(metrics))
    page = REPORTS / "report.html"
    if page.is_file():
        Console().print(f"Pictures: {REPORTS}/*.png, all on one page: {page}")
    else:
        Console().print(f"These are the figures of {METRICS}; for its pictures: dvc repro")


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Photos, and folders with photos in them.")],
    model: Annotated[
        str,
        typer.Option(
            help="The folder of the trained model; or champion, or a commit, branch, tag or "
            "experiment, whose model DVC then fetches."
        ),
    ] = str(MODELS),
    format: Annotated[Format, typer.Option(help="How to write the rows.")] = Format.table,
) -> None:
    """Say what is on photos. The exit code is 1 if any could not be read."""
    folder = _model_folder(model)
    from catdog.predict import run_predict

    try:
        broken = run_predict(paths, folder, format.value, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as in `catdog predict … | head`. Typer would make it exit code
        # 1, which says that a file could not be read. At its end Python flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    if broken:
        raise CatdogError(f"{broken} of the files could not be read; each has its error beside it")


def _model_folder(model: str) -> Path:
    """Return the folder of the trained model that `--model` names, fetched if it has to be."""
    folder = Path(model)
    if folder.is_dir() or folder == MODELS:
        return folder
    from catdog.experiments import revisions

    try:
        commit = revisions.resolve(model)
    except CatdogError as error:
        raise CatdogError(f"--model {error}; nor is it a folder") from None
    return revisions.fetch(commit, str(MODELS))


@app.command()
def fetch(
    archive: Annotated[
        Path | None, typer.Option(help="A zip or tar archive, or a folder, that you have.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where to download one; Microsoft's original 25,000 if left out."),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="What the download must hash to.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the photos that data/raw holds now.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Take photos in: check each, put the good ones into data/raw, hand them to DVC.

    Takes PetImages/Cat/1.jpg (Microsoft's), train/cat.1.jpg (Kaggle's) and class folders of any
    names.
    """
    if archive is not None and (url is not None or sha256 is not None):
        raise CatdogError("--archive is a file that is here: leave --url and --sha256 out")
    from catdog.ingest import download, dvc_add, photo_import

    photo_import.refuse_to_overwrite(RAW, replace)
    if archive is None:
        if url is None:
            url, sha256 = download.MICROSOFT_URL, sha256 or download.MICROSOFT_SHA256
        archive = download.download(url, DOWNLOADS, sha256)
    report = photo_import.import_photos(
        archive, RAW, replace=replace, quarantine=QUARANTINE, workers=workers
    )
    _print(photo_import.report_table(report))
    if not Path(".dvc").is_dir():
        return
    changed = dvc_add.add(RAW)
    console = Console()
    console.print("Changed in git:" if changed else "Nothing changed in git: the same photos.")
    for line in changed:
        console.print(f"  {line}", markup=False, highlight=False)
    if changed:
        console.print("Now: dvc repro; and git commit to keep this version of the photos.")


@app.command()
def champion(
    revision: Annotated[
        str | None,
        typer.Argument(help="The revision to make champion; left out, the present one is shown."),
    ] = None,
    force: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Do it whatever compare says; the tag keeps why."),
    ] = None,
) -> None:
    """Make a revision's model the champion, if it is better than the present one.

    Better is what `catdog compare` says so of, on the test photos of both. The champion is kept in
    git tags (see gto): push them with git push --tags. An experiment's model needs dvc push too.
    """
    if revision is None and force is not None:
        raise CatdogError("--force needs the revision that is to be the champion")
    from catdog.experiments import registry
    from catdog.experiments.champion import crown

    now = crown(revision, force) if revision else registry.current()
    if now is None:
        typer.echo("no champion yet; `catdog champion REVISION` makes one")
    else:
        typer.echo(f"champion: {now.version}, commit {now.commit[:7]}. {now.reason}")


@app.command()
def compare(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Commits, branches, tags, experiments, `champion`, or `workspace`. One alone is "
            "compared with the workspace, none means HEAD and the workspace."
        ),
    ] = None,
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Compare settings: each with all its train.seed."),
    ] = False,
    format: Annotated[Form, typer.Option(help="How to write it.")] = Form.table,
) -> None:
    """Say how revisions differ from the first, and whether the difference is real."""
    from catdog.experiments.compare import compare as run
    from catdog.experiments.comparison_report import write

    write(run(revisions or [], seeds), format.value, Console())


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    count: Annotated[int, typer.Option(min=2, help="How many cats and dogs together.")] = 800,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws others.")] = 1,
) -> None:
    """Draw the embedded sample: cats and dogs, as class folders."""
    from tools.draw_sample import draw_sample

    draw_sample(folder, count, seed)


@app.command(name="params")
def explain_params(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write docs/params.md instead, to stdout.")
    ] = False,
) -> None:
    """Check params.yaml and explain each of its keys."""
    if markdown:
        from catdog.params.docs import as_markdown

        typer.echo(as_markdown(), nl=False)
        return
    table = Table("key", "value", "what it is")
    for key, value, description in _leaves(_load_params()):
        table.add_row(key, "" if value is None else str(value), description)
    _print(table)


def _load_params() -> params.Params:
    """Return the settings of params.yaml, complete: nothing is left to torchvision's weights."""
    settings = params.load()
    if not settings.model.from_torchvision:
        return settings
    from catdog.model import pretrained  # takes seconds, and few need it

    return pretrained.complete(settings)


def _leaves(section: params.Section, prefix: str = "") -> list[tuple[str, Any, str]]:
    leaves: list[tuple[str, Any, str]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, params.Section):
            leaves += _leaves(value, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", value, field.description or ""))
    return leaves


def _counts_table(counts: dict[str, dict[str, int]]) -> Table:
    names = sorted(counts["train"])
    table = Table("split", *map(escape, names), "all")  # [indoor] in a name is no markup
    for split, row in counts.items():
        numbers = [row.get(name, 0) for name in names]
        table.add_row(split, *(f"{number:,}" for number in (*numbers, sum(numbers))))
    return table


def _print(table: Table) -> None:
    Console().print(table)


def main() -> None:
    """Run the command; what a user can mend becomes one line on stderr and exit code 1."""
    try:
        app()
    except BrokenProcessPool:
        _fail("a process that decoded photos was killed, perhaps for want of memory")
    except (CatdogError, OSError) as error:  # OSError: a full disk, a folder that is not writable
        _fail(str(error), error.exit_code if isinstance(error, CatdogError) else 1)
    finally:
        gc.freeze()  # else Python's end looks through all that torch imported: most of a second


def _fail(line: str, exit_code: int = 1) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"catdog: {line}", markup=False)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
