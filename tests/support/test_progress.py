"""A bar on a terminal, plain lines elsewhere."""

import os
import pty
import subprocess
import sys

TRAINING = """
from catdog.support.progress import Progress
with Progress(2) as progress:
    for epoch in (1, 2):
        progress.step(epoch, 0.5)
        progress.say(f"epoch {epoch}/2 [done]")
"""
COMMAND = [sys.executable, "-c", TRAINING]


def test_elsewhere_there_is_one_plain_line_an_epoch() -> None:
    output = subprocess.run(COMMAND, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["epoch 1/2 [done]", "epoch 2/2 [done]"]


def test_on_a_terminal_a_bar_stands_below_the_lines() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(COMMAND, stdout=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        try:
            while block := os.read(ours, 4096):
                output += block
        except OSError:  # Linux's way to say that the other side is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    assert "━" in output.decode()
    assert "epoch 2/2 [done]" in output.decode()
