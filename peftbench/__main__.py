"""`python -m peftbench` is the command `peftbench`."""

from peftbench.cli.main import main

main()
