"""The choices of a tokenisation, saved with every corpus and every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES_PER_DAY = 1440

# CoMET has 13 intervals, from 1-5 minutes to 6 months and more; its exact edges are not public. These are ETHOS's
# (arXiv 2312.06548) with a 1-5 minute interval added and the two intervals between 1 and 6 months merged.
COMET_EDGES = (1, 5, 15, 60, 120, 360, 720, 1440, 4320, 10080, 20160, 43200, 259200)


@dataclass(frozen=True)
class TokenSettings:
    """How events become tokens."""

    interval_edges: tuple[int, ...] = COMET_EDGES
    """Lower edges of the time intervals, in minutes; the last one is repeated for longer gaps."""
    quantiles: int = 10
    """Number of shared quantile tokens for numeric values."""
    min_patients: int = 10
    """A code seen in fewer training patients gets no token; its events are dropped and counted."""
    age_band_years: int = 5
    """Width of an age band, in years."""
    thin_minutes: int = 0
    """Keep only the last value of each code in every window of so many minutes; 0 keeps all."""

    def __post_init__(self) -> None:
        edges = self.interval_edges
        rising = all(low < high for low, high in zip(edges, edges[1:], strict=False))
        if not edges or not rising or edges[0] < 1 or any(edge != int(edge) for edge in edges):
            raise ValueError(f"interval_edges must be rising whole minutes, not {edges}")
        for name, least in (
            ("quantiles", 2),
            ("min_patients", 1),
            ("age_band_years", 1),
            ("thin_minutes", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
