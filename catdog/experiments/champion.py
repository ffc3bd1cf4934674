"""Who becomes the champion, the model that is in use: only one that `compare` calls better."""

from catdog.errors import CatdogError
from catdog.experiments import compare, registry, revisions
from catdog.experiments.registry import Champion
from catdog.experiments.significance import Difference
from catdog.paths import MODELS


def crown(revision: str, force: str | None = None) -> Champion:
    """Make the model of a revision the champion if `compare` says that it is better; return it.

    The first champion has nobody to beat. The tag's message says what the comparison found, and
    `force`, the reason to crown it whatever was found. Raises CatdogError, and leaves the tags as
    they were, if it is not better, if it is the champion already, or if its model cannot be had.
    """
    commit, present = revisions.resolve(revision), registry.current()
    if present and present.commit == commit:
        raise CatdogError(f"{revision}: is the champion already, as {present.version}")
    revisions.fetch(commit, str(MODELS))  # a champion that nobody can fetch is none
    return registry.assign(commit, _reason(revision, commit, present, force))


def _reason(revision: str, commit: str, present: Champion | None, force: str | None) -> str:
    """Return what the tag is to say; CatdogError if the revision may not be the champion."""
    if force is not None and not force.strip():
        raise CatdogError("--force needs a reason, which stays in the tag")
    if present is None:
        return f"Forced: {force}" if force else "The first champion: there was none to compare with"
    try:
        comparison = compare.compare([present.commit, commit])
    except CatdogError as error:
        if force is None:
            raise
        return f"Forced: {force} (not compared with {present.version}: {error})"
    verdict, doubts = comparison.difference, "; ".join(comparison.notes)
    assert verdict is not None  # they are two
    found = in_words(verdict, present.version) + (f"; doubtful: {doubts}" if doubts else "")
    if force is not None:
        return f"Forced: {force} ({found})"
    if doubts or verdict.kind != "better":
        raise CatdogError(
            f"{revision} is not the champion: {found}; --force REASON makes it so nevertheless"
        )
    return found[0].upper() + found[1:]


def in_words(verdict: Difference, champion: str) -> str:
    """Return the verdict on a candidate against the champion's version, with its numbers."""
    kind = {"no difference": "no difference that these photos can show from"}.get(
        verdict.kind, f"{verdict.kind} than"
    )
    points = [f"{100 * share:+.1f}" for share in (verdict.difference, verdict.low, verdict.high)]
    return (
        f"{kind} {champion} on the same {verdict.photos:,} test photos: {points[0]} points of "
        f"accuracy ({points[1]} to {points[2]}), McNemar p = {verdict.p:.2g}"
    )
