"""So that `python -m sequela` is the command `sequela`."""

from sequela.serve.cli import main

main()
