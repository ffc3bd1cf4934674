"""Run git so that neither the settings of the user nor a hook changes what a command prints."""

import os
import re
import subprocess

from catdog.errors import CatdogError

# They take precedence over the configuration files of the user, the machine and the repository.
SETTINGS = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "status.showUntrackedFiles": "normal",
}
UNTRUSTED = "detected dubious ownership"


def run(*arguments: str) -> str:
    """Return what a git command prints; CatdogError with git's reason, in one line, if it fails.

    The command changes nothing, not even the index, which `git status` would refresh.
    """
    done = _run(arguments)
    if done.returncode:
        raise CatdogError(f"git {arguments[0]} failed: {_reason(done.stderr)}")
    return done.stdout


def find(*arguments: str) -> str:
    """Return what a git command prints, without surrounding white space; empty if it fails.

    Raises CatdogError if git is not installed, or if it refuses the repository because that belongs
    to another user.
    """
    done = _run(arguments)
    if UNTRUSTED in done.stderr:
        raise CatdogError(f"git refuses the repository: {_reason(done.stderr)}")
    return done.stdout.strip() if done.returncode == 0 else ""


def check_trusted() -> None:
    """Raise CatdogError if git refuses the repository because it belongs to another user.

    The git libraries of DVC and GTO would raise an error of their own, without saying what to do.
    """
    find("rev-parse", "--git-dir")


def _run(arguments: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    settings = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", *settings, *arguments],
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        raise CatdogError("git: command not found; install git") from None


def _reason(errors: str) -> str:
    """Return the reason in git's standard error, and git's command to trust the repository."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("warning:", "hint:"))]
    reason = re.sub("^(fatal|error): ", "", (reasons or ["no reason given"])[0])
    trust = next((line for line in lines if line.startswith("git config --global --add safe.")), "")
    return f"{reason}; to trust it, run: {trust}" if trust else reason
