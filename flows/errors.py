"""The error that flows raise for what a user can fix."""


class FlowError(RuntimeError):
    """An error that the user can fix; the message says where, what is wrong and what to do.

    It is also the message of the failed run's state. Only the first line is logged, so it must be
    self-contained.
    """


def first_line(error: FlowError) -> str:
    """Return the summary of an error."""
    return str(error).partition("\n")[0]
