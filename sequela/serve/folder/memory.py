"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_PROC = Path("/proc/self")


def reset_peak() -> None:
    """Restart the measurement where the system allows it (Linux); elsewhere the peak is of the process's lifetime."""
    try:
        (_PROC / "clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_mb() -> float:
    """The largest resident size since `reset_peak`, in MB (2**20 bytes)."""
    status = _PROC / "status"
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
