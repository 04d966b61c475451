"""Kinds of stay: which codes open and close one, and whether its ends reliably follow a start."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.tokens.ehr.code import CLOSES, OPENS, order_rank

# A kind of stay has a rule only if at most this share of its ends has no start: some sources record ends only.
MOST_WITHOUT_START = 1 / 1000


@dataclass(frozen=True)
class StayKind:
    """A kind of stay, and how its ends occurred in the training rows.

    Attributes:
        kind: the code that ends it, without where to or where from (see `stay_of`).
        ends: number of ends.
        without_start: how many of them occurred while no stay of this kind was open.
    """

    kind: str
    ends: int
    without_start: int

    @property
    def ruled(self) -> bool:
        """Whether an end of this kind requires an open stay."""
        return self.ends > 0 and self.without_start <= MOST_WITHOUT_START * self.ends


def stay_of(code: str) -> tuple[str, bool] | None:
    """The kind of stay that a code opens or closes, and whether it closes it; None for any other code.

    >>> stay_of("ENCOUNTER_START//WELLNESS"), stay_of("ENCOUNTER_END//WELLNESS")
    (('ENCOUNTER_END//WELLNESS', False), ('ENCOUNTER_END//WELLNESS', True))
    >>> stay_of("ICU_ADMISSION//MICU"), stay_of("ICU_DISCHARGE//SICU"), stay_of("ED_REGISTRATION")
    (('ICU_DISCHARGE', False), ('ICU_DISCHARGE', True), ('ED_OUT', False))
    >>> stay_of("LAB//HDL")
    """
    rank = order_rank(code)
    if rank not in (OPENS, CLOSES):
        return None
    head, slashes, rest = code.partition("//")
    head = head.upper()
    closes = rank == CLOSES
    if "ADMISSION" in head or "DISCHARGE" in head:
        return head.replace("ADMISSION", "DISCHARGE"), closes
    if head.endswith(("_REGISTRATION", "_OUT")):
        return head.removesuffix("_REGISTRATION").removesuffix("_OUT") + "_OUT", closes
    if head.endswith(("_START", "_END")):
        what = rest.split("//")[0]  # some sources add why a stay began, which its end does not repeat
        return f"{head.removesuffix('_START').removesuffix('_END')}_END{slashes}{what}", closes
    return f"{code.removesuffix('//START').removesuffix('//END')}//END", closes
