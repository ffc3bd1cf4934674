"""The one error that a user of the flows meets."""


class FlowError(RuntimeError):
    """Something the user can mend: its text says what is wrong and where.

    It becomes the message of the run's state; its first line stands alone, and is all that is
    logged.
    """
