"""Run git so that neither the settings of the user nor a hook changes what a command does."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from flows.errors import FlowError

# Make git fail with an error message instead of asking for a password.
UNATTENDED = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
# The variables of `git rev-parse --local-env-vars` that choose a repository; git sets them in a
# hook, for the repository of the hook.
LOCAL_VARIABLES = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
}
# They take precedence over the configuration files of the user, the machine and the repository.
SETTINGS = {
    "clone.defaultRemoteName": "origin",
    "clone.rejectShallow": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "diff.noprefix": "false",
    "fetch.prune": "false",
    "log.showSignature": "false",
    "status.renames": "true",
    "status.showUntrackedFiles": "normal",
}
# A clone for a run keeps these in its own configuration, which the git libraries of DVC read too.
# The files of a commit are then the same on every machine, and the ones git would ignore only for
# this user are part of the result.
CLONE_SETTINGS = {
    **SETTINGS,
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.excludesFile": os.devnull,
    "core.safecrlf": "false",
    "tag.gpgSign": "false",
}
UNTRUSTED = "detected dubious ownership"  # of a repository that belongs to another user


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what `git ARGUMENTS...` prints in `folder`; FlowError with git's reason if it fails.

    `environment` is added to the environment of this process.
    """
    done = _run(folder, arguments, environment or {})
    if done.returncode:
        raise FlowError(f"git {arguments[0]} failed in {folder}: {_reason(done.stderr)}")
    return done.stdout.rstrip("\n")


def try_git(folder: Path, *arguments: str) -> str | None:
    """Return what `git ARGUMENTS...` prints in `folder`, or None if it fails."""
    done = _run(folder, arguments, {})
    return None if done.returncode else done.stdout.rstrip("\n")


def clone(source: str, folder: Path, *, working_folder: Path) -> None:
    """Clone a repository on this machine into `folder`, without files, sharing its objects.

    Raises FlowError with git's reason.
    """
    settings = [f"--config={key}={value}" for key, value in CLONE_SETTINGS.items()]
    options = ["--quiet", "--shared", "--no-checkout", "--origin=origin", "--template="]
    git(working_folder, "clone", *options, *settings, source, str(folder))


def _run(
    folder: Path, arguments: tuple[str, ...], more: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    inherited = {key: value for key, value in os.environ.items() if key not in LOCAL_VARIABLES}
    settings = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
    try:
        return subprocess.run(
            ["git", *settings, *arguments],
            cwd=folder,
            env={**UNATTENDED, **inherited, **more, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        if error.filename != "git":
            raise
        raise FlowError("git: command not found; install git") from None


def _reason(errors: str) -> str:
    """Return the reason in git's standard error: the first line that is not a warning or a hint.

    With SSH, that is ssh's error message; git only adds that it could not read from the remote.
    If the repository belongs to another user, git's command to trust it is added.
    """
    ignored = ("warning:", "hint:", "Cloning into", "To ")
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(ignored)]
    reason = re.sub("^(fatal|error): ", "", (reasons or ["no reason given"])[0])
    trust = next((line for line in lines if line.startswith("git config --global --add safe.")), "")
    return f"{reason}; to trust it, run: {trust}" if trust else reason
