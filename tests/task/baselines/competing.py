"""Patients of whom some die first, and some are lost."""

import numpy as np

from sequela.task.baselines.baseline import TrainingSample


def sample_with_competing_death(count: int) -> tuple[TrainingSample, np.ndarray]:
    """Ten days of patients whose hazard of the event rises with the last of three values; and when each would have it.

    Death, the more frequent, competes.
    """
    draw = np.random.default_rng(2)
    values = draw.normal(size=(count, 3)).astype(np.float32)
    event, death = draw.exponential(20 * np.exp(-values[:, 2])), draw.exponential(8, count)
    lost = draw.uniform(0, 15, count)
    until = np.minimum.reduce([event, death, lost, np.full(count, 10.0)])
    outcome = np.select([until == event, until == lost], [1.0, np.nan], 0.0)
    return TrainingSample(values, outcome, until), event
