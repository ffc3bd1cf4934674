"""Names of revisions: from a commit, branch, tag, experiment or `champion` to the commit."""

from catdog.errors import CatdogError
from catdog.support import git

CHAMPION = "champion"


def resolve(revision: str) -> str:
    """Return the full hash of a commit, branch, tag or DVC experiment, or of the champion.

    `champion` is the current champion unless git or DVC knows that name. Raises CatdogError if the
    revision is unknown, or if the name is that of experiments of several commits.
    """
    commit = _git_commit(revision) or _experiment(revision)
    if commit:
        return commit
    if revision == CHAMPION:
        return _champion()
    raise CatdogError(
        f"{revision}: unknown revision; choose a commit, branch, tag or experiment "
        "(`git branch --all` and `dvc exp list --all` list them)"
    )


def _git_commit(revision: str) -> str:
    """Return the commit of a revision that git knows, else an empty string."""
    return git.find(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )


def _experiment(name: str) -> str | None:
    """Return the commit of an experiment, None if there is no experiment of this name."""
    # DVC takes a second to import, and most names are git's.
    from dvc.repo.experiments.utils import exp_refs_by_names  # noqa: PLC0415
    from dvc.scm import SCM, SCMError  # noqa: PLC0415

    try:
        scm = SCM(".")
    except SCMError:  # not in a git repository
        return None
    refs = exp_refs_by_names(scm, {name})[name]
    baselines = {str(scm.get_ref(str(ref))): str(ref.baseline_sha) for ref in refs}
    if len(baselines) < 2:
        return next(iter(baselines), None)
    head = git.find("rev-parse", "HEAD")
    known = ", ".join(
        f"{commit[:10]} (of {'HEAD' if baseline == head else baseline[:10]})"
        for commit, baseline in sorted(baselines.items(), key=lambda pair: pair[1] != head)
    )
    raise CatdogError(
        f"{name}: ambiguous: {len(baselines)} commits have an experiment of this name; pass the "
        f"commit of the experiment, one of {known}"
    )


def _champion() -> str:
    from catdog.experiments import registry  # noqa: PLC0415 (takes half a second, rarely needed)

    champion = registry.current()
    if champion is None:
        raise CatdogError(f"{CHAMPION}: no champion yet; `catdog champion REVISION` promotes one")
    return champion.commit


def read_text(commit: str, path: str) -> str:
    """Return the text of a file that git tracks; CatdogError if it is not in the commit."""
    # ./ because the project may be in a subfolder of the repository
    text = git.find("cat-file", "blob", f"{commit}:./{path}")
    if not text:
        raise CatdogError(
            f"{commit[:7]}: {path} not found; choose a revision in which `dvc repro` has been run"
        )
    return text
