"""Codes as tokens: hierarchical codes in parts, all others whole."""

from __future__ import annotations

from functools import lru_cache

from sequela.tokens.ehr.family import family

# ICD-10-CM 3|2|2 is the split that reproduces CoMET's 2,429 diagnosis tokens; ATC 3|2|2 its 289 medication tokens.
WIDTHS = {"ICD10CM": (3, 2, 2), "ATC": (3, 2, 2)}
# A complaint and, where it is known, its place in the body: two tokens.
COMPLAINT = "CHIEF_COMPLAINT"
IN_PARTS = (*WIDTHS, COMPLAINT)
# Among events of one moment: what opens a stay, where, why, everything else, what closes a stay, death.
OPENS, WHERE, WHY, REST, CLOSES, DIES = range(6)


@lru_cache(maxsize=1 << 17)
def split_code(code: str) -> tuple[str, ...]:
    """The token names of a code; each part carries its position, so parts of different places never mix.

    >>> split_code("ICD10CM//E1165")
    ('ICD10CM//1//E11', 'ICD10CM//2//65')
    >>> split_code("ATC//A10BA02")
    ('ATC//1//A10', 'ATC//2//BA', 'ATC//3//02')
    >>> split_code("CHIEF_COMPLAINT//PAIN//LEFT KNEE")
    ('CHIEF_COMPLAINT//1//PAIN', 'CHIEF_COMPLAINT//2//LEFT KNEE')
    >>> split_code("LAB//HDL")
    ('LAB//HDL',)
    """
    system, _, rest = code.partition("//")
    if system == COMPLAINT and rest and not rest.startswith("//"):
        pieces = rest.split("//", 1)
    elif system in WIDTHS and rest and "//" not in rest:
        first, second, _ = WIDTHS[system]
        rest = rest.replace(".", "")  # ICD-10-CM with its dot is the same code
        pieces = [rest[:first], rest[first : first + second], rest[first + second :]]
    else:
        return (code,)
    return tuple(f"{system}//{place}//{piece}" for place, piece in enumerate(pieces, 1) if piece)


def join_parts(tokens: tuple[str, ...]) -> str:
    """The code that `split_code` took apart.

    >>> join_parts(("ICD10CM//1//E11", "ICD10CM//2//65"))
    'ICD10CM//E1165'
    >>> join_parts(("CHIEF_COMPLAINT//1//PAIN", "CHIEF_COMPLAINT//2//LEFT KNEE"))
    'CHIEF_COMPLAINT//PAIN//LEFT KNEE'
    """
    if part_place(tokens[0]) == 0:
        return tokens[0]
    system = tokens[0].partition("//")[0]
    pieces = [token.split("//", 2)[2] for token in tokens]
    return f"{system}//" + ("//" if system == COMPLAINT else "").join(pieces)


def part_place(token: str) -> int:
    """1, 2 or 3 for a part of a code, 0 for any other token.

    >>> part_place("ICD10CM//2//65"), part_place("LAB//HDL")
    (2, 0)
    """
    pieces = token.split("//", 2)
    return int(pieces[1]) if len(pieces) == 3 and pieces[0] in IN_PARTS and pieces[1].isdecimal() else 0


@lru_cache(maxsize=1 << 17)
def order_rank(code: str) -> int:
    """Place of a code among events of one moment.

    >>> order_rank("HOSPITAL_ADMISSION//EMERGENCY") < order_rank("LAB//HDL") < order_rank("MEDS_DEATH")
    True
    """
    group = family(code)
    if group == "death":
        return DIES
    if group != "encounter":
        return {"department": WHERE, "complaint": WHY}.get(group, REST)
    head = code.split("//", 1)[0].upper()
    if "DISCHARGE" in head or head.endswith(("_END", "_OUT")) or code.endswith("//END"):
        return CLOSES
    return OPENS
