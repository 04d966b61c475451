"""The choices of a tokenization, saved with every corpus and every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

# CoMET has 13 intervals, from 1-5 minutes to 6 months and more; its exact edges are not public. These are ETHOS's
# (arXiv 2312.06548) with a 1-5 minute interval added and the two intervals between 1 and 6 months merged.
COMET_EDGES = (1, 5, 15, 60, 120, 360, 720, 1440, 4320, 10080, 20160, 43200, 259200)
# The 19 intervals of ETHOS-ARES, from its code.
ETHOS_EDGES = (
    *(5, 15, 45, 75, 120, 180, 300, 480, 720, 1080),
    *(1440, 2880, 5760, 10080, 17280, 28800, 43200, 86400, 259200),
)  # fmt: skip
MOST_QUANTILES = 1000  # each is a token
TIMES = ("intervals", "rotary")
IN_VERSION_0_1 = {"gap_years": 0}  # what settings were in folders that do not name them
MAPS: tuple[str, ...] = ("mimic-meds", "gem")  # the code maps applied by default


@dataclass(frozen=True)
class TokenSettings:
    """How events become tokens."""

    interval_edges: tuple[int, ...] = COMET_EDGES
    """Lower edges of the time intervals, in minutes; the last one is repeated for longer gaps."""
    time: str = "intervals"
    """intervals: elapsed time is told by tokens; rotary: by their positions, so that it is known, not predicted."""
    quantiles: int = 10
    """Number of quantile tokens for numeric values, shared by all codes."""
    fused: bool = True
    """One token for a code and its quantile together, instead of two as in CoMET."""
    joint: bool = False
    """Hierarchical codes as one token each, instead of in parts."""
    min_patients: int = 10
    """A code in fewer training patients gets no token; its events are dropped and counted."""
    labs: int = 1000
    """Maximum number of laboratory codes with a token; the most frequent are kept."""
    procedures: int = 1500
    """Maximum number of procedure codes with a token of their own; all others share PROCEDURE//UNKNOWN."""
    age_band_years: int = 5
    """Width of an age band, in years."""
    calendar_years: int = 5
    """Width of a calendar period, in years; 0 for none. A dataset whose dates are not real never has any."""
    gap_years: int = 120
    """A longer gap, between two events or up to the end of follow-up, counts as this many years; 0 for no limit."""
    thin_minutes: int = 0
    """Keep only the last value of each code in every window of this many minutes; 0 keeps all."""

    def __post_init__(self) -> None:
        edges = self.interval_edges
        rising = all(low < high for low, high in zip(edges, edges[1:], strict=False))
        if not edges or not rising or edges[0] < 1 or any(edge != int(edge) for edge in edges):
            raise ValueError(f"interval_edges must be rising whole minutes, not {edges}")
        if self.time not in TIMES:
            raise ValueError(f"time must be one of {', '.join(TIMES)}, not {self.time!r}")
        least = {
            "quantiles": 2,
            "min_patients": 1,
            "labs": 0,
            "procedures": 0,
            "age_band_years": 1,
            "calendar_years": 0,
            "gap_years": 0,
            "thin_minutes": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be {low} or more, not {getattr(self, name)}")
        if self.quantiles > MOST_QUANTILES:
            raise ValueError(f"quantiles must be {MOST_QUANTILES} or less, not {self.quantiles}")
