"""Remove stages from dvc.lock whose outputs are in neither the cache nor the remote.

    python flows/runs/missing_outputs.py          (in a DVC project)

DVC does not look up a stage in the run cache if dvc.lock has it with the same dependencies, even if
its outputs exist on another machine only: it runs the stage again, each time (`StageCache.restore`
in DVC 3.67; no upstream issue found, searched 2026-11-30; treeverse/dvc#9420 is similar). Without
the entry in dvc.lock, `dvc repro` restores what this machine has computed before, and writes the
entry again. `make repro` and each run of a flow call this command before `dvc repro`, as a child
process: DVC's lock does not separate two threads of one process.
"""

import os
import sys
from pathlib import Path

from dvc.config import NoRemoteError
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.serialize import dump_yaml, load_yaml

LOCK = "dvc.lock"


def main() -> int:
    """Remove the stages from the dvc.lock in the current folder; return the exit code.

    0: done, with a line for each removed stage; 1: dvc.lock cannot be written; the reason is
    printed. What DVC cannot read is left to `dvc repro`, which runs next and reports it.
    """
    try:
        with Repo(str(Path.cwd())) as repo, repo.lock:
            names = stages_without_outputs(repo)
            remove_stages(Path(repo.root_dir) / LOCK, names)
    except DvcException:
        return 0
    except OSError as error:
        print(f"ERROR: {LOCK}: cannot be written: {error}", file=sys.stderr)
        return 1
    for name in names:
        print(
            f"Stage '{name}': its outputs in {LOCK} are in neither the cache nor a remote;"
            " looking in the run cache"
        )
    return 0


def stages_without_outputs(repo: Repo) -> list[str]:
    """Return the stages in dvc.lock of which an output is in neither the cache nor the remote."""
    return [
        stage.name
        for stage in repo.index.stages
        if isinstance(stage, PipelineStage)
        and any(out.hash_info and out.use_cache and _is_missing(out, repo) for out in stage.outs)
    ]


def _is_missing(out: Output, repo: Repo) -> bool:
    """Return whether an output is known to be in neither the cache nor its remote."""
    if not out.changed_cache():
        return False
    try:
        remote = repo.cloud.get_remote_odb(out.remote, hash_name=out.hash_name)
        # A folder is pushed after its files, so its own object is enough.
        return not remote.exists(out.hash_info.value)
    except NoRemoteError:
        return True
    except Exception:  # each kind of remote raises its own; `dvc repro` reports them
        return False


def remove_stages(lock: Path, names: list[str]) -> None:
    """Remove stages from a dvc.lock; an empty one is deleted, as DVC does."""
    if not names:
        return
    content = load_yaml(lock)
    content["stages"] = {
        name: entry for name, entry in content["stages"].items() if name not in names
    }
    if not content["stages"]:
        lock.unlink()
        return
    new = lock.with_name(f".{lock.name}.{os.getpid()}.new")
    try:
        dump_yaml(new, content)
        new.replace(lock)
    finally:
        new.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
