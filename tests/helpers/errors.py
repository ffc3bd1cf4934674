"""The message of an error that a user can fix."""

from collections.abc import Callable

import pytest

from catdog.errors import CatdogError


def error_line(function: Callable[..., object], *arguments: object, **options: object) -> str:
    """Call a function, which must raise CatdogError; return its message, which must be one line."""
    with pytest.raises(CatdogError) as refused:
        function(*arguments, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message
