"""Python runs this first in every process that a run starts: there, too, the harness has something go wrong."""

from tests.faults.steps import install_from_environment

install_from_environment()
