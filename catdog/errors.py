"""The exceptions that stand for what the user can mend."""


class CatdogError(Exception):
    """Something the user can mend: its text says what is wrong, where, and what to do.

    The command line prints it as one line and exits with `exit_code`, without a traceback.
    """

    exit_code = 1


class Stopped(CatdogError):  # noqa: N818 (it is no error that a training stops when told to)
    """A training was told to stop, and its state is saved: starting it again goes on from there.

    The exit code is EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
    """

    exit_code = 75
