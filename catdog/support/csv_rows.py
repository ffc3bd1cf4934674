"""Write rows of CSV that every reader splits into the same rows, whatever they contain."""

import csv
from collections.abc import Iterable, Sequence
from typing import TextIO


def write_csv(stream: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Write rows with \\n line endings, each as soon as `rows` yields it.

    Values are quoted only where necessary; a row with a carriage return is quoted as a whole.
    """
    writer = csv.writer(stream, lineterminator="\n")
    # Until Python 3.13, csv quotes a carriage return only if it is in the line terminator.
    quoting_writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting_writer if any("\r" in str(value) for value in row) else writer).writerow(row)
