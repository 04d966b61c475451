"""The program `sequela`, also as `python -m sequela`.

The command line is only imported when it runs: worker processes import this file first.
"""


def main() -> None:
    """Run the command line."""
    from sequela.serve.cli import main as run

    run()


if __name__ == "__main__":
    main()
