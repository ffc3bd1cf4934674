"""The commands, for messages, that bring back outputs which DVC's cache lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from catdog.experiments import revisions
from catdog.paths import RAW, RAW_POINTER

if TYPE_CHECKING:  # outputs.py needs no Project, and DVC takes a second to import
    from catdog.experiments.snapshots import Project


def recovery_advice(project: Project, name: str, commit: str | None, out: str) -> str:
    """Return which commands bring an output of a revision into the cache."""
    experiments = [experiment for experiment, _ in project.experiments]
    if commit is None:
        checkout = ""
    elif commit == project.commit("HEAD"):
        checkout = "git stash && "
    elif name in experiments or name == revisions.CHAMPION:
        # `dvc exp apply` fails where the cache lacks outputs; but an experiment is a commit, too.
        checkout = f"git checkout {commit[:10]} && "
    else:
        checkout = f"git checkout {name} && "
    # Another kind of processor may compute other bytes than those that the revision names.
    again = (
        f"`{checkout}{rerun_command(commit, project.root)}` computes it again, as the experiment "
        "`again`: compare with that name"
    )
    if not project.has_default_remote:
        return again
    return f"`{checkout}dvc pull {out}` brings it if the remote has it; {again}"


def rerun_command(commit: str | None, root: Path = Path()) -> str:
    """Return the command that computes a commit's outputs again, once it is checked out in `root`.

    None stands for the workspace.
    """
    pointer = root / RAW_POINTER
    here = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    needed = revisions.git("-C", str(root), "show", f"{commit}:./{RAW_POINTER}") if commit else here
    # `dvc exp run` fails without photos, and would use those of another commit if they are on disk.
    pull = needed and (needed != here or not (root / RAW).exists())
    return f"{f'dvc pull {RAW_POINTER} && ' if pull else ''}dvc exp run -n again"
