"""Codes as tokens: hierarchical codes in parts, all others whole."""

from __future__ import annotations

# ICD-10-CM 3|2|2 is the split that reproduces CoMET's 2,429 diagnosis tokens; ATC 3|2|2 its 289 medication tokens.
SPLITS = {"ICD10CM": (3, 2, 2), "ATC": (3, 2, 2)}


def split_code(code: str) -> tuple[str, ...]:
    """The token names of a code; each part carries its position, so parts of different places never mix.

    >>> split_code("ICD10CM//E1165")
    ('ICD10CM//1//E11', 'ICD10CM//2//65')
    >>> split_code("ATC//A10BA02")
    ('ATC//1//A10', 'ATC//2//BA', 'ATC//3//02')
    >>> split_code("LAB//HDL")
    ('LAB//HDL',)
    """
    system, _, rest = code.partition("//")
    if system not in SPLITS or not rest or "//" in rest:
        return (code,)
    first, second, _ = SPLITS[system]
    parts = rest[:first], rest[first : first + second], rest[first + second :]
    return tuple(f"{system}//{place}//{part}" for place, part in enumerate(parts, 1) if part)


def join_parts(tokens: tuple[str, ...]) -> str:
    """The code that `split_code` took apart.

    >>> join_parts(("ICD10CM//1//E11", "ICD10CM//2//65"))
    'ICD10CM//E1165'
    """
    if part_place(tokens[0]) == 0:
        return tokens[0]
    system = tokens[0].partition("//")[0]
    return f"{system}//" + "".join(token.rsplit("//", 1)[1] for token in tokens)


def part_place(token: str) -> int:
    """1, 2 or 3 for a part of a hierarchical code, 0 for any other token.

    >>> part_place("ICD10CM//2//65"), part_place("LAB//HDL")
    (2, 0)
    """
    pieces = token.split("//")
    return int(pieces[1]) if len(pieces) == 3 and pieces[0] in SPLITS else 0


def order_rank(code: str) -> int:
    """Place of a code among events of one moment: what opens a stay first, what closes it later, death at the end."""
    if code == "MEDS_DEATH":
        return 3
    head = code.split("//", 1)[0]
    if "DISCHARGE" in head or code.endswith("//END"):
        return 2
    return 0 if "ADMISSION" in head or code.endswith("//START") else 1
