"""`python -m catdog` is the `catdog` command, for launchers that want a module."""

from catdog.cli import main

main()
