"""The commands that restore or recompute outputs which are not in the DVC cache, for messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from catdog.experiments import revisions
from catdog.paths import RAW, RAW_POINTER
from catdog.support import git

if TYPE_CHECKING:  # outputs.py needs no Project, and DVC takes a second to import
    from catdog.experiments.snapshots import Project


def recovery_advice(project: Project, name: str, commit: str | None, out: str) -> str:
    """Return how to restore an output of a revision, or how to recompute it."""
    experiments = [experiment for experiment, _ in project.experiments]
    if commit is None:
        checkout = ""
    elif commit == project.commit("HEAD"):
        checkout = "git stash && "
    elif name in experiments or name == revisions.CHAMPION:
        # `dvc exp apply` fails if outputs are not in the cache, but an experiment is a commit, too.
        checkout = f"git checkout {commit[:10]} && "
    else:
        checkout = f"git checkout {name} && "
    # A new experiment, because results on another processor may not be byte-identical: the outputs
    # of the revision itself may still not be in the cache.
    again = (
        f"recompute it with `{checkout}{rerun_command(commit, project.root)}` and compare the "
        "experiment `again` instead"
    )
    if not project.has_default_remote:
        return again
    return f"run `{checkout}dvc pull {out}` if the remote has it, or {again}"


def rerun_command(commit: str | None, root: Path = Path()) -> str:
    """Return the command that recomputes the outputs of a commit checked out in `root`.

    None stands for the workspace. The command names the result, an experiment, `again`.
    """
    pointer = root / RAW_POINTER
    here = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    needed = _pointer_of(commit, root) if commit else here
    # `dvc exp run` fails without photos, and would use those of another commit if they are on disk.
    pull = needed and (needed != here or not (root / RAW).exists())
    return f"{f'dvc pull {RAW_POINTER} && ' if pull else ''}dvc exp run -n again"


def _pointer_of(commit: str, root: Path) -> str:
    return git.find("-C", str(root), "cat-file", "blob", f"{commit}:./{RAW_POINTER}")
