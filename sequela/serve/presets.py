"""Demo presets: for each source, its tasks and the settings of every stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from sequela.errors import InputError
from sequela.keywords import changed
from sequela.rollout.settings import SimulateSettings
from sequela.serve.config import sections_in
from sequela.tokens.ehr.settings import TokenSettings
from sequela.training.settings import TrainSettings


@dataclass(frozen=True)
class Preset:
    """What a demo runs: the tasks, and the settings of the stages.

    Attributes:
        title: the data, for people.
        tasks: names in the catalog.
        limits: what readers must know about the data before they trust a number; sentences for the report.
        patients: simulate at most this many held-out patients; None for all.
    """

    title: str
    tasks: tuple[str, ...]
    limits: tuple[str, ...]
    tokenize: TokenSettings = field(default_factory=TokenSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    simulate: SimulateSettings = field(default_factory=SimulateSettings)
    patients: int | None = None


@dataclass(frozen=True)
class SeedSettings:
    """The random numbers of a demo."""

    seed: int = 0
    """Seed of training, simulation and bootstrap."""
    seeds: int = 1
    """Train so many models, with this seed and the next ones, and average their answers; each stays visible."""

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("seeds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be {least} or more, not {getattr(self, name)}")

    def each(self, chosen: Preset) -> list[Preset]:
        """`chosen` with each seed."""
        seeds = range(self.seed, self.seed + self.seeds)
        return [
            replace(chosen, train=replace(chosen.train, seed=seed), simulate=replace(chosen.simulate, seed=seed))
            for seed in seeds
        ]


# Two layers, 128 wide: enough to learn these data in a few minutes on two cores. Steps of two rows keep two cores busy.
# Rates, decay, the weight of outcomes and epochs are tuned on patients that are not held out (docs/records).
SMALL = TrainSettings(
    depth=2, context=1024, row_tokens=2048, batch_tokens=4096, epochs=5.0, learning_rate=6e-3, matrix_rate=6e-3,
    weight_decay=2.0, outcome_weight=10.0,
)  # fmt: skip

PRESETS = {
    "nafld": Preset(
        title="NAFLD cohort: adults of one county in Minnesota, followed for years",
        tasks=("death_5y", "new_diabetes_5y", "new_hypertension_5y", "new_cardiovascular_5y"),
        limits=(
            "The cohort is a matched case-control sample (people with fatty liver and up to four controls of the same "
            "age and sex each), so its event rates are not those of a population.",
            "There are no calendar dates: everyone's index date is day 0.",
            "Many patients leave before five years have passed. Their answers are not known; the others are weighted "
            "to stand for them, which is right only where leaving does not depend on the risk itself.",
        ),
        train=SMALL,
        simulate=SimulateSettings(rollouts=16),
    ),
    "physionet2012": Preset(
        title="PhysioNet 2012: the first 48 hours of intensive-care stays",
        tasks=("in_hospital_death", "remaining_stay"),
        limits=(
            "The stays were selected (adults, at least 48 hours long) and come from one hospital system in the years "
            "2001 to 2008.",
            "What happens between the 48th hour and the discharge is not recorded, apart from its date and its end.",
        ),
        tokenize=TokenSettings(thin_minutes=360),
        train=SMALL,
        simulate=SimulateSettings(rollouts=200),  # short ones: the median of fewer is a noisy guess of a stay
    ),
}


def preset(source: str) -> Preset:
    """The preset of a source.

    Raises:
        InputError: if there is none.
    """
    if source not in PRESETS:
        raise InputError(f"there is no demo for '{source}': choose one of {', '.join(PRESETS)}.")
    return PRESETS[source]


def quick(chosen: Preset) -> Preset:
    """The same demo with too little training, and too few patients and futures, to mean much: a look in a minute."""
    return replace(
        chosen,
        train=replace(chosen.train, epochs=0.2),
        simulate=replace(chosen.simulate, rollouts=5),
        patients=400,
    )


def with_file(chosen: Preset, path: Path) -> Preset:
    """`chosen` with the settings in the sections of a TOML file.

    Raises:
        InputError: for a section or a setting that does not exist, or a value of the wrong type.
    """
    for section, values in sections_in(path, ("tokenize", "train", "simulate")).items():
        where = f"{path}, [{section}]: "
        chosen = replace(chosen, **{section: changed(getattr(chosen, section), values, where)})
    return chosen
