"""The progress display: a bar on a terminal, plain lines elsewhere."""

import os
import pty
import subprocess
import sys

TRAINING = """
import sys
from catdog.support.progress import progress_bar
with progress_bar(2, quiet="quiet" in sys.argv) as progress:
    for epoch in (1, 2):
        progress.update(epoch, 0.5)
        progress.log(f"epoch {epoch}/2 [done]")
"""
COMMAND = [sys.executable, "-c", TRAINING]


def test_without_a_terminal_only_the_log_lines_are_printed() -> None:
    output = subprocess.run(COMMAND, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["epoch 1/2 [done]", "epoch 2/2 [done]"]


def test_quiet_prints_nothing() -> None:
    command = [*COMMAND, "quiet"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_on_a_terminal_a_bar_is_shown_below_the_lines() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(COMMAND, stdout=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        try:
            while block := os.read(ours, 4096):
                output += block
        except OSError:  # Linux raises EIO when the other side of a pseudo-terminal is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    assert "━" in output.decode()
    assert "epoch 2/2 [done]" in output.decode()
