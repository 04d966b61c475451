"""Look for defects with atheris, which prefers inputs that reach new code.

    python -m tests.fuzz.coverage TARGET -max_total_time=60

TARGET is one of `tests.fuzz.targets`; the other words are libFuzzer's. atheris is not among the dependencies: pip
install atheris. Ends with 0 where nothing was found; else the traceback and the bytes are shown.
"""

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["sequela.record", "tomllib", "tarfile"]):
        from tests.fuzz.targets import SEEDS, TARGETS

    name, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *flags, corpus], TARGETS[name])
        atheris.Fuzz()
