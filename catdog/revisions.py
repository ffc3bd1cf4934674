"""The commit of a revision, by any name that git or DVC knows."""

import subprocess

from catdog.errors import CatdogError


def resolve(revision: str) -> str:
    """Return the full hash of a commit, branch, tag or DVC experiment.

    Of experiments with the same name, the one of HEAD is meant. Raises CatdogError if there is
    none, or several and none of HEAD.
    """
    commit = _try_git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit:
        return commit
    found = {base: commit for base, name, commit in experiments() if name == revision}
    head = _try_git("rev-parse", "HEAD")
    if head in found or len(found) == 1:
        return found.get(head) or next(iter(found.values()))
    if found:
        known = ", ".join(commit[:7] for commit in found.values())
        raise CatdogError(f"{revision}: experiments of several commits have this name: {known}")
    raise CatdogError(
        f"{revision}: no commit, branch, tag or experiment here; `dvc exp list --all` and "
        "`git branch --all` show what there is"
    )


def experiments() -> list[tuple[str, str, str]]:
    """Return the baseline, the name and the commit of each DVC experiment in this repository."""
    found = []
    for line in _try_git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").split(
        "\n"
    ):
        commit, _, ref = line.partition(" ")
        parts = ref.split("/", 4)  # refs/exps/ab/cdef…/NAME
        if len(parts) == 5 and len(parts[2] + parts[3]) == 40:
            found.append((parts[2] + parts[3], parts[4], commit))
    return found


def _try_git(*arguments: str) -> str:
    """Return what a git command prints, without the last line end; nothing if it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CatdogError("git is not installed, and revisions are git's") from None
    return done.stdout.strip() if done.returncode == 0 else ""
