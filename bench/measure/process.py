"""Run a command as a user would, and say how long it took and how much memory all its processes held."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
# The command decides by itself how many threads it wants; what a test or a shell had set must not decide for it.
THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Spent:
    """What one run of a command took.

    Args:
        seconds: wall time, the start-up included.
        cpu_seconds: user and system time of all its processes that it waited for.
        tree_bytes: most resident memory of all processes at one moment, summed; pages that they share count for each.
        process_bytes: most resident memory that any one process ever had.
        output: what the command printed.
    """

    seconds: float
    cpu_seconds: float
    tree_bytes: int
    process_bytes: int
    output: str


class Failed(Exception):
    """The command ended with an error; says with what and the end of its output. `reason` is its one telling line."""

    @property
    def reason(self) -> str:
        lines = [line.strip() for line in str(self).splitlines() if line.strip()]
        telling = [line for line in lines if line == "Killed" or "Error" in line or "sequela:" in line]
        killed = "killed by the system, most likely for memory: " if "Killed" in telling else ""
        return killed + (telling or lines)[-1][:200]


def run(command: list[str], environment: dict[str, str] | None = None, *, every: float = 0.1) -> Spent:
    """Run `command` to its end, looking at its processes once in `every` seconds.

    A process belongs to the command as long as it stays in the command's session, so children of children count too.

    Raises:
        Failed: where the command ends with an exit code other than 0.
    """
    clean = {name: value for name, value in os.environ.items() if name not in THREADS}
    tree = largest = 0
    with tempfile.TemporaryFile() as output:
        before, start = os.times(), time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean | (environment or {}),
            start_new_session=True,
        )
        while True:
            resident, peak = _memory(process.pid)
            tree, largest = max(tree, resident), max(largest, peak)
            try:
                process.wait(every)
                break
            except subprocess.TimeoutExpired:
                continue
        seconds, after = time.perf_counter() - start, os.times()
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if process.returncode:
        raise Failed(f"exit code {process.returncode} of {' '.join(command)}:\n{printed[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(seconds, cpu, tree, largest, printed)


def sequela(*arguments: str | Path) -> list[str]:
    """The command line `sequela ...` of the environment that runs this, as a user would start it."""
    return [str(Path(sys.executable).with_name("sequela")), *map(str, arguments)]


def in_turn(
    sides: dict[str, Callable[[], Spent]], repeats: int
) -> tuple[dict[str, list[Spent]], dict[str, str]]:
    """Run every side once, then every side again, `repeats` times: what the machine does meanwhile hits all alike.

    Returns:
        The runs of each side that never failed, and the reason of those that did (they are not run again).
    """
    runs: dict[str, list[Spent]] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            if name not in failed:
                try:
                    runs[name].append(side())
                except Failed as error:
                    failed[name] = error.reason
    return {name: own for name, own in runs.items() if name not in failed}, failed


def median(runs: list[Spent]) -> Spent:
    """The run of the middle by time (of an even number, the slower of the two)."""
    return sorted(runs, key=lambda one: one.seconds)[len(runs) // 2]


def median_pair(ours: list[Spent], theirs: list[Spent]) -> tuple[Spent, Spent]:
    """Of the pairs that ran one after the other, the one of the middle by their time over ours."""
    pairs = sorted(zip(ours, theirs, strict=True), key=lambda pair: pair[1].seconds / pair[0].seconds)
    return pairs[(len(pairs) - 1) // 2]


def keep_to_cores(number: int) -> None:
    """Let this process and all that it starts run on the first `number` cores only, where the system can do so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def computable(precisions: list[str]) -> list[str]:
    """Those of `precisions` ("fp32", "bf16") that this processor multiplies in; prints which rows are left out."""
    from sequela.model.precision import has_bf16

    if "bf16" not in precisions or has_bf16("cpu"):
        return precisions
    print("This processor has no bf16 matrix products: the rows in bf16 are left out.")
    return [name for name in precisions if name != "bf16"]


def machine() -> str:
    """The machine in one line: processor, the cores in use, memory, and the load before the measurement."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    return (
        f"{_processor()}, {cores} cores used of {os.cpu_count()}, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def commit() -> str:
    """The commit of the repository that this file stands in, with + where files were changed since."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return (name.stdout.strip() or "unknown") + ("+" if changed.stdout else "")


def _memory(session: int) -> tuple[int, int]:
    """Resident bytes of all processes of a session, and the highest mark of any of them."""
    resident = peak = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # the name stands in brackets and may hold anything; after it: state, parent, group, session
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            resident += int((folder / "statm").read_text().split()[1]) * PAGE
            for line in (folder / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    return resident, peak


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
