"""Exceptions for errors that the user can fix, and the text of other exceptions in one line."""


class CatdogError(Exception):
    """An error that the user can fix; its message says where, what is wrong and what to do.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class Stopped(CatdogError):  # noqa: N818 (a requested stop is not an error)
    """Training was stopped by a signal after saving a checkpoint; running it again resumes it.

    The exit code is EX_TEMPFAIL of sysexits.h: "temporary failure; user is invited to retry".
    """

    exit_code = 75


class PhotoError(CatdogError):
    """A file that cannot be used as a photo; the message is the reason, without the path."""


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
