"""The champion's version and commit, kept in git tags by GTO (https://dvc.org/doc/gto).

`catdog@v0.0.1` is a version of the model, `catdog#champion#1` assigns the stage champion to a
version. Both are tags: `git push --tags` publishes them, and CI can react to them.
"""

from operator import itemgetter
from typing import NamedTuple

from gto import api
from gto.exceptions import ArtifactNotFound, GTOException
from scmrepo.exceptions import SCMError

from catdog.errors import CatdogError
from catdog.support import git

ARTIFACT, STAGE = "catdog", "champion"


class Champion(NamedTuple):
    """The champion: its version, its commit, and the reason for its promotion."""

    version: str
    commit: str
    reason: str


def current() -> Champion | None:
    """Return the current champion; None if there is no champion.

    Raises CatdogError if the tags cannot be read.
    """
    git.check_trusted()
    try:
        versions = api.show(
            ".", f"{ARTIFACT}#{STAGE}", assignments_per_version=-1, versions_per_stage=-1
        )
    except ArtifactNotFound:
        return None
    except (GTOException, SCMError) as error:
        raise CatdogError(
            f"champion: {_first_line(error)}; run this in a git repository with readable tags"
        ) from None
    assignments = [
        (_number(assignment["tag"]), version, assignment)
        for version in versions
        for stage in version["stages"]
        if stage["stage"] == STAGE and stage["is_active"]
        for assignment in stage["assignments"]
    ]
    if not assignments:
        return None
    _, version, last = max(assignments, key=itemgetter(0))
    return Champion(version["version"], version["commit_hexsha"], last["message"])


def assign(commit: str, reason: str) -> Champion:
    """Make a commit's model the champion, with `reason` as the message of the tag; return it.

    Raises CatdogError if the tag cannot be created.
    """
    try:
        # force: by default GTO refuses a version that had the stage before, which a former champion
        # has (iterative/gto#272).
        api.assign(".", ARTIFACT, STAGE, ref=commit, message=reason, force=True)
    except (GTOException, SCMError) as error:
        message = f"{commit[:7]}: cannot create the git tag: {_first_line(error)}"
        raise CatdogError(message) from None
    champion = current()
    assert champion is not None
    return champion


def _number(tag: str) -> int:
    """Return N of the tag `catdog#champion#N`; GTO's times have a resolution of one second."""
    return int(tag.rpartition("#")[2])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
