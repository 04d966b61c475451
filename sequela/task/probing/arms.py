"""Arms: models whose embeddings are compared, each with one folder of vectors or one for each training seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION
from sequela.rollout.embeddings.folder import EmbeddingFacts, read_embeddings, read_facts, vectors_of
from sequela.task.answers.prediction import is_ours
from sequela.task.baselines.rivals import FOREST, STRONG, TOKENS
from sequela.task.kinds import KINDS

SEED = re.compile(r"(?P<arm>.+)[-_]seed[-_]?(?P<seed>\d+)")
PLAIN = "embeddings"  # a folder of this name says nothing about its model
COX = "_cox"  # behind the name of an arm: its Cox heads
LAST_VALUES = "last_values"  # the baseline of a head on the last value of each code
BASELINES = frozenset(name for kind in KINDS.values() for name in kind.baselines)
TAKEN = BASELINES | {STRONG, TOKENS, FOREST, LAST_VALUES}


@dataclass(frozen=True, eq=False)
class Arm:
    """The embeddings of one training seed of an arm.

    Attributes:
        name: of the arm.
        seed: which of its training seeds; None if the folder does not say.
        folder: where they lie.
        facts: what they are.
        frame: `subject_id`, `prediction_time`, `vector`.
    """

    name: str
    seed: int | None
    folder: Path
    facts: EmbeddingFacts
    frame: pl.DataFrame

    @property
    def model(self) -> str:
        """What its predictions are called."""
        return self.name if self.seed is None else f"{self.name}-seed{self.seed}"

    def of(self, questions: pl.DataFrame) -> np.ndarray:
        """The vectors of these questions in their order, float32 [N, D].

        Raises:
            InputError: where one has none.
        """
        rows = self.frame.select(QUESTION).with_row_index("_row")
        found_N = questions.select(QUESTION).join(rows, on=QUESTION, how="left", maintain_order="left")
        missing = found_N.filter(pl.col("_row").is_null())
        if missing.height:
            patient, time = missing.select(QUESTION).row(0)
            raise InputError(
                f"{self.folder} has no vector of patient {patient} at {time} ({missing.height:,} of "
                f"{questions.height:,} such questions): embed the questions of the task at the same landmarks, of the "
                "patients of all splits."
            )
        return vectors_of(self.frame[found_N["_row"].to_numpy()])


def read_arms(folders: Sequence[Path]) -> list[Arm]:
    """The arms in the folders, in their order.

    An arm is called like its folder, and one called "embeddings" like the objective of its model. Folders that end with
    -seed1, -seed2 and so on are seeds of one arm.

    Raises:
        InputError: for a folder that cannot be read (see `read_embeddings`), two of one name, a name of something else,
            seeds whose vectors cannot be compared, and a reference to none.
    """
    arms: list[Arm] = []
    for folder in map(Path, folders):
        facts = read_facts(folder)
        called = Path(folder.resolve()).name
        called = facts.objective if called == PLAIN else called
        match = SEED.fullmatch(called)
        name, seed = (called, None) if match is None else (match["arm"], int(match["seed"]))
        _check_name(name, folder)
        twin = next((arm for arm in arms if (arm.name, arm.seed) == (name, seed)), None)
        if twin is not None:
            raise InputError(
                f"{twin.folder} and {folder} are both called '{name}': rename one of them, or let their names end with "
                "-seed1 and -seed2 if they are two seeds of one arm."
            )
        other = next((arm for arm in arms if arm.name == name), None)
        if other is not None and (other.seed is None) != (seed is None):
            raise InputError(
                f"{other.folder} and {folder} are one arm, and one of them names no seed: let both names end with a "
                "seed, such as -seed1."
            )
        if other is not None and (other.facts.pooling, other.facts.width) != (facts.pooling, facts.width):
            raise InputError(
                f"{other.folder} and {folder} are two seeds of one arm but pooled in other ways or of other widths: "
                "embed both with the same settings."
            )
        arms.append(Arm(name, seed, folder, facts, read_embeddings(folder)))
    return arms


def _check_name(name: str, folder: Path) -> None:
    base = name.removesuffix(COX)
    if is_ours(name) or name in TAKEN or base != name:
        raise InputError(
            f"{folder} would be an arm called '{name}', which is what other answers are called: rename the folder."
        )


def reference_of(arms: Sequence[Arm], wanted: str) -> str:
    """The arm that all others are compared with: the `wanted` one, or the first.

    Raises:
        InputError: if there is none of that name.
    """
    names = list(dict.fromkeys(arm.name for arm in arms))
    if wanted and wanted not in names:
        raise InputError(f"`reference` is '{wanted}': choose one of the arms, {', '.join(names)}.")
    return wanted or names[0]
