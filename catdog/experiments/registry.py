"""Which version of the model is the champion: git tags of GTO (https://dvc.org/doc/gto).

`catdog@v0.0.1` names a version of the model, `catdog#champion#1` says which version is the
champion. Both are tags, so `git push --tags` hands them on, and CI can react to them.
"""

from operator import itemgetter
from typing import NamedTuple

from gto import api
from gto.exceptions import ArtifactNotFound, GTOException
from scmrepo.exceptions import SCMError

from catdog.errors import CatdogError

ARTIFACT, STAGE = "catdog", "champion"


class Champion(NamedTuple):
    """The champion: its version, its commit, and why it is the champion."""

    version: str
    commit: str
    reason: str


def current() -> Champion | None:
    """Return the present champion; None if there is none.

    Raises CatdogError if the tags cannot be read.
    """
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


def assign(commit: str, reason: str) -> Champion:
    """Make a commit's model the champion, for a reason that stays in the tag; return it.

    Raises CatdogError if git cannot be given the tag.
    """
    try:
        # force: a former champion may become it again
        api.assign(".", ARTIFACT, STAGE, ref=commit, message=reason, force=True)
    except (GTOException, SCMError) as error:
        raise CatdogError(f"{commit[:7]}: git cannot be given the tag: {_line(error)}") from None
    champion = current()
    assert champion is not None
    return champion


def _number(tag: str) -> int:
    """Return N of the tag `catdog#champion#N`: times would not tell two of one second apart."""
    return int(tag.rpartition("#")[2])


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
