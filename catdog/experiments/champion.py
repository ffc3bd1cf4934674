"""Promote a model to champion, the model in use, only if it is significantly better."""

from catdog.errors import CatdogError
from catdog.experiments import compare, outputs, recovery, registry, revisions
from catdog.experiments.registry import Champion
from catdog.experiments.run_results import NotCachedError
from catdog.experiments.significance import Difference
from catdog.experiments.snapshots import Project
from catdog.paths import MODELS, REPORTS


def promote(revision: str, force: str | None = None) -> Champion:
    """Make the model of a revision the champion if `compare` finds it better; return it.

    The first champion is promoted without a comparison. `force` is a reason to promote the model
    regardless of the comparison. The message of the git tag records both. Raises CatdogError, and
    leaves the tags unchanged, if the model is not better, is the champion already, or cannot be
    fetched.
    """
    commit, present = revisions.resolve(revision), registry.current()
    if present and present.commit == commit:
        raise CatdogError(f"{revision}: already the champion, as {present.version}")
    outputs.fetch(revision, commit, str(MODELS))  # raises if the model cannot be fetched
    return registry.assign(commit, _reason(revision, commit, present, force))


def _reason(revision: str, commit: str, present: Champion | None, force: str | None) -> str:
    """Return the message for the tag; CatdogError if the revision may not be promoted."""
    if force is not None and not force.strip():
        raise CatdogError("--force: empty reason; pass the reason to record in the git tag")
    if present is None:
        return f"Forced: {force}" if force else "First champion, promoted without a comparison"
    try:
        comparison = compare.compare([present.commit, commit])
    except CatdogError as error:
        if force is None:
            _explain_missing_champion(present, error)
            raise
        return f"Forced: {force} (not compared with {present.version}: {error})"
    difference, doubts = comparison.difference, "; ".join(comparison.notes)
    assert difference is not None  # two revisions
    found = describe(difference, present.version) + (f"; inconsistent: {doubts}" if doubts else "")
    if force is not None:
        return f"Forced: {force} ({found})"
    if doubts or difference.kind != "better":
        raise CatdogError(
            f"{revision}: not promoted: {found}; use --force REASON to promote it anyway"
        )
    return found[0].upper() + found[1:]


def _explain_missing_champion(present: Champion, error: CatdogError) -> None:
    """Raise CatdogError with a way to compare if `error` is that the champion has no results here.

    Its results are then those of another machine. Recomputed here, they belong to another commit,
    which can replace the champion only with --force.
    """
    if not isinstance(error, NotCachedError) or error.commit != present.commit:
        return
    project = Project()
    again, exists = recovery.experiment_of_this_machine(project, present.commit, str(REPORTS))
    run = recovery.recompute_command(project, revisions.CHAMPION, present.commit, again)
    reason = f"--force 'Recomputed on this machine: {present.version}'"
    command = ("" if exists else f"{run} && ") + f"catdog champion {again} {reason}"
    raise CatdogError(
        f"{present.version}: the results of the champion are from another machine and not in the "
        f"DVC cache; promote the same commit, computed on this machine, with `{command}`, and run "
        "this command again"
    ) from None


def describe(difference: Difference, champion: str) -> str:
    """Return the result of a comparison with the champion's version, with its numbers."""
    kind = {"no difference": "not significantly different from"}.get(
        difference.kind, f"{difference.kind} than"
    )
    points, low, high = (
        f"{100 * share:+.1f}" for share in (difference.difference, difference.low, difference.high)
    )
    return (
        f"{kind} {champion} on the same {difference.photos:,} test photos: accuracy {points} "
        f"percentage points (95 % interval {low} to {high}), p = {difference.p:.2g} "
        f"({difference.test})"
    )
