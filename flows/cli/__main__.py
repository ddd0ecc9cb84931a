"""`python -m flows.cli`."""

from featcx_core.entry import main

main()
