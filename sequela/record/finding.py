"""What deserves a person's look: one form for all that a stage notices about the data.

A stage that notices something says it as a `Finding`; `sequela.serve` shows how many there are on the terminal and each
of them on a page. Data in which all is well have none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

ENOUGH = 20  # patients of whom one should have died
NO_SEX = (
    "no sex that can be read",
    "Give them GENDER//M or GENDER//F without a time if the source knows it; GENDER//1 is not guessed.",
)
FINDINGS = "findings"  # the key under which a stage's result keeps them


@dataclass(frozen=True)
class Finding:
    """Something that deserves a look.

    Attributes:
        count: how many things it is about.
        things: what they are, in the plural: patients, rows, events, codes.
        what: what was noticed about them, a phrase that stands behind a colon: "no birth, so no age".
        do: what to do about it, a whole sentence.
        of: how many things there are in all; 0 where that means nothing.
        where: the table, column or rule of the source; empty for the whole dataset.
    """

    count: int
    things: str
    what: str
    do: str
    of: int = 0
    where: str = ""

    @property
    def words(self) -> str:
        """The finding in two sentences.

        >>> Finding(3, "patients", "no birth, so no age", "Map their births.", of=60).words
        '3 of 60 patients (5.0%): no birth, so no age. Map their births.'
        >>> Finding(1, "rows", "not a time", "Check them.", where="table labs").words
        'Table labs: 1 row: not a time. Check them.'
        """
        where = f"{self.where[:1].upper()}{self.where[1:]}: " if self.where else ""
        return f"{where}{self._amount()}: {self.what}. {self.do}"

    def _amount(self) -> str:
        if not self.of:
            things = self.things.removesuffix("s") if self.count == 1 else self.things
            return f"{self.count:,} {things}"
        share = self.count / self.of
        shown = f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
        return f"{self.count:,} of {self.of:,} {self.things} ({shown})"


def as_values(findings: list[Finding]) -> list[dict]:
    """The findings as plain values for JSON, under the key `FINDINGS`."""
    return [asdict(finding) for finding in findings]


def findings_in(result: dict) -> list[Finding]:
    """The findings that a stage's result holds; of an older version, none."""
    return [Finding(**values) for values in result.get(FINDINGS, ())]
