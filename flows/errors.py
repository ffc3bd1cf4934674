"""The error of flows that a user can fix."""


class FlowError(RuntimeError):
    """What is wrong, where, and what to do: the message of the failed run's state.

    The first line is complete without the others; it is the only one that is logged.
    """
