"""`python -m peftbench` is the command `peftbench`."""

from peftbench.cli import main

main()
