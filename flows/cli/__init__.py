"""The command line: one file a command."""

from flows.cli.app import main

__all__ = ["main"]
