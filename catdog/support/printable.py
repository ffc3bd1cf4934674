"""Text without characters that control a terminal."""


def printable(text: str) -> str:
    """Return a text with its control characters escaped, as in \\n; they may change a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
