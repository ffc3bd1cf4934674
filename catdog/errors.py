"""The one exception that stands for a user's mistake."""


class CatdogError(Exception):
    """Something the user can mend: its text says what is wrong, where, and what to do.

    The command line prints it as one line and exits with code 1, without a traceback.
    """
