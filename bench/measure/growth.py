"""How time grows with the number of patients."""

from __future__ import annotations

import math


def slope(rows: list[dict]) -> float | None:
    """Of log "seconds" over log "patients" between the last two rows; None for a single row."""
    if len(rows) < 2:
        return None
    before, last = rows[-2:]
    return math.log(last["seconds"] / before["seconds"]) / math.log(last["patients"] / before["patients"])


def fitted(rows: list[dict]) -> float | None:
    """The same by least squares over all rows."""
    if len(rows) < 2:
        return None
    x, y = ([math.log(row[key]) for row in rows] for key in ("patients", "seconds"))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - middle_x) ** 2 for a in x)
