"""The program `sequela`, also as `python -m sequela`.

The command line is only imported when it runs: worker processes import this file first.
"""

import sys


def main() -> None:
    """Run the command line."""
    from sequela.serve.signals import KILLED, heeding

    with heeding() as stop:  # a library may turn what stops its import into another error
        try:
            from sequela.serve.cli import main as run
        except BaseException:
            if not stop.number:
                raise
            sys.stderr.write("sequela: stopped before anything was done.\n")
            raise SystemExit(KILLED + stop.number) from None
    run()


if __name__ == "__main__":
    main()
