"""Push what `dvc push` leaves out: results that git keeps, such as metrics.json (`cache: false`).

    python flows/runs/push_uncached.py          (in a DVC project)

DVC's run cache has them, but on this machine only. On any other one it would know the stage, miss
that file, and run the stage again. With the file in the remote, `dvc repro --pull` restores it.
"""

import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo


def main() -> int:
    """Push to the default remote of the project we are in; return the exit code.

    0: it has them all; 1, with one line that says why: it does not.
    """
    try:
        with Repo(str(Path.cwd())) as repo:
            if found := uncached(repo):
                if failed := repo.cloud.push(found).failed:
                    raise OSError(f"the remote did not take {len(failed)} of {len(found)}")
                print(f"{len(found)} results that git keeps are in the remote too")
    except (DvcException, OSError) as error:
        print(f"ERROR: failed to push the results that git keeps: {error}")
        return 1
    return 0


def uncached(repo: Repo) -> list[HashInfo]:
    """Return what dvc.lock knows, git keeps and the run cache has put into the local cache."""
    outs = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
    hashes = [out.hash_info for out in outs if out.hash_info]
    return [value for value in hashes if repo.cache.local.exists(value.value)]


if __name__ == "__main__":
    sys.exit(main())
