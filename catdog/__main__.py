"""`python -m catdog` is the `catdog` command, for launchers that require a module."""

from catdog.cli import main

main()
