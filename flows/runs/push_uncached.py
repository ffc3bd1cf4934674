"""Push the outputs that `dvc push` skips: those with `cache: false`, such as metrics.json.

    python flows/runs/push_uncached.py          (in a DVC project)

The run cache stores them on this machine only. Another machine would find the stage in the run
cache, but not this output, and run the stage again (treeverse/dvc#5749). With the output in the
remote, `dvc repro --pull` restores it.
"""

import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo


def main() -> int:
    """Push to the default remote of the project in the current folder; return the exit code.

    0: all outputs are in the remote; 1: the push failed; the reason is printed.
    """
    try:
        with Repo(str(Path.cwd())) as repo:
            if found := uncached(repo):
                if failed := repo.cloud.push(found).failed:
                    raise OSError(f"{len(failed)} of {len(found)} could not be written")
                print(f"pushed {len(found)} outputs with cache: false")
    except (DvcException, OSError) as error:
        print(f"ERROR: failed to push outputs with cache: false: {error}")
        return 1
    return 0


def uncached(repo: Repo) -> list[HashInfo]:
    """Return the hashes of outputs with `cache: false` that the run cache has stored locally."""
    outs = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
    hashes = [out.hash_info for out in outs if out.hash_info]
    return [value for value in hashes if repo.cache.local.exists(value.value)]


if __name__ == "__main__":
    sys.exit(main())
