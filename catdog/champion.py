"""The champion: the model that is in use, kept as git tags of GTO (https://dvc.org/doc/gto).

`catdog@v0.0.1` names a version of the model, `catdog#champion#1` says which version is the
champion. Both are tags, so `git push --tags` hands them on, and CI can react to them.
"""

from operator import itemgetter
from typing import NamedTuple

from gto import api
from gto.exceptions import ArtifactNotFound, GTOException
from scmrepo.exceptions import SCMError

from catdog import compare, revisions
from catdog.errors import CatdogError
from catdog.significance import Difference

ARTIFACT, STAGE = "catdog", "champion"
MODELS = "models"


class Champion(NamedTuple):
    """The champion: its version, its commit, and why it is the champion."""

    version: str
    commit: str
    reason: str


def current() -> Champion | None:
    """Return the present champion; None if there is none."""
    try:
        versions = api.show(
            ".", f"{ARTIFACT}#{STAGE}", assignments_per_version=-1, versions_per_stage=-1
        )
    except ArtifactNotFound:
        return None
    except (GTOException, SCMError) as error:
        raise CatdogError(
            f"champion: {_line(error)}; it is kept in git tags of this folder"
        ) from None
    found = [
        (_number(assigned["tag"]), version, assigned)
        for version in versions
        for stage in version["stages"]
        if stage["stage"] == STAGE and stage["is_active"]
        for assigned in stage["assignments"]
    ]
    if not found:
        return None
    _, version, last = max(found, key=itemgetter(0))
    return Champion(version["version"], version["commit_hexsha"], last["message"])


def _number(tag: str) -> int:
    """Return N of the tag `catdog#champion#N`: times would not tell two of one second apart."""
    return int(tag.rpartition("#")[2])


def commit_of_champion() -> str:
    """Return the champion's commit; CatdogError if there is no champion."""
    champion = current()
    if champion is None:
        raise CatdogError("there is no champion yet; `catdog champion REVISION` makes one")
    return champion.commit


def crown(revision: str, force: str | None = None) -> Champion:
    """Make the model of a revision the champion if `compare` says that it is better; return it.

    The first champion has nobody to beat. The tag's message says what the comparison found, and
    `force`, the reason to crown it whatever was found. Raises CatdogError, and leaves the tags as
    they were, if it is not better, if it is the champion already, or if its model cannot be had.
    """
    commit, present = revisions.resolve(revision), current()
    if present and present.commit == commit:
        raise CatdogError(f"{revision}: is the champion already, as {present.version}")
    revisions.fetch(commit, MODELS)  # a champion that nobody can fetch is none
    reason = _reason(revision, commit, present, force)
    try:
        # force: a former champion may become it again
        api.assign(".", ARTIFACT, STAGE, ref=commit, message=reason, force=True)
    except (GTOException, SCMError) as error:
        raise CatdogError(f"{revision}: git cannot be given the tag: {_line(error)}") from None
    crowned = current()
    assert crowned is not None
    return crowned


def _reason(revision: str, commit: str, present: Champion | None, force: str | None) -> str:
    """Return what the tag is to say; CatdogError if the revision may not be the champion."""
    if force is not None and not force.strip():
        raise CatdogError("--force needs a reason, which stays in the tag")
    if present is None:
        return f"Forced: {force}" if force else "The first champion: there was none to compare with"
    try:
        comparison = compare.compare([present.commit, commit])
        if comparison.notes:
            raise CatdogError(f"{revision} is not the champion: {'; '.join(comparison.notes)}")
    except CatdogError as error:
        if force is None:
            raise
        return f"Forced: {force} (not compared with {present.version}: {error})"
    verdict = comparison.difference
    assert verdict is not None  # they are two
    found = in_words(verdict, present.version)
    if verdict.kind == "better":
        return f"Forced: {force} ({found})" if force else found[0].upper() + found[1:]
    if force is None:
        raise CatdogError(
            f"{revision} is not the champion: {found}; --force REASON makes it so nevertheless"
        )
    return f"Forced: {force} ({found})"


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


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
