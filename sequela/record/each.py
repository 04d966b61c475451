"""A rule that is written once and holds for many columns: a table in it (`each`) has a row for every rule it makes."""

from __future__ import annotations

from sequela.record.errors import InputError
from sequela.record.mapping import RowTable


def filled(said: dict, each: RowTable, place: str) -> list[dict]:
    """`said` once for each row of `each`: wherever a text of it has "{COLUMN}", the row's cell stands, as it is.

    Raises:
        InputError: where a column of `each` is used nowhere; `place` names the rule.
    """
    for column in each.columns:
        if _fill(said, {column: ""}) == said:
            raise InputError(f"{place}, each: nothing in the rule says {{{column}}}; say it, or leave the column out.")
    return [_fill(said, dict(zip(each.columns, row, strict=True))) for row in each.rows]


def _fill(said: object, cells: dict[str, object]) -> object:
    if isinstance(said, str):
        for column, cell in cells.items():
            said = said.replace(f"{{{column}}}", str(cell))
        return said
    if isinstance(said, list):
        return [_fill(one, cells) for one in said]
    if isinstance(said, dict):
        return {_fill(key, cells): _fill(value, cells) for key, value in said.items()}
    return said
