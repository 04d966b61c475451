"""A probe on rounded vectors: what a sound encoder holds is still there, and what a collapsed one holds is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.task.probing.heads import ProbeRows, fit_linear
from sequela.task.probing.rounded import bfloat16, repeated
from tests.task.conftest import make_task
from tests.task.probing.conftest import make_rows

SPLITS = [make_rows(600, 0), make_rows(200, 1), make_rows(600, 2)]


def squeezed(factor: float) -> list[ProbeRows]:
    """The same vectors, as deviations of so much around what all patients have in common."""
    shared = np.random.default_rng(5).normal(size=6)
    return [
        replace(rows, sample=replace(rows.sample, values=(shared + factor * rows.sample.values).astype(np.float32)))
        for rows in SPLITS
    ]


def numbers(rows: ProbeRows) -> ProbeRows:
    """A number instead of a class."""
    return replace(rows, sample=replace(rows.sample, outcome=10 + 5 * np.tanh(rows.sample.values[:, 0].astype(float))))


def test_rounding_is_that_of_bfloat16() -> None:
    draw = np.random.default_rng(0)
    special = [0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-30, -3e30]
    values = np.concatenate([draw.normal(size=500), special]).astype(np.float32)
    np.testing.assert_array_equal(bfloat16(values), torch.from_numpy(values).bfloat16().float().numpy())
    assert bfloat16(values[:6].reshape(2, 3).T).shape == (3, 2)


@pytest.mark.parametrize(("factor", "lost"), [(1.0, False), (0.1, False), (1e-4, True)])
def test_a_collapsed_encoder_is_seen_which_a_standardized_probe_does_not_see(factor: float, lost: bool) -> None:
    rows = squeezed(factor)
    head = fit_linear(make_task(), *rows[:2])
    again = repeated(make_task(), head, *rows)
    assert again.as_is > 0.78 and again.lost == lost
    assert (again.rounded < 0.62) if lost else again.rounded == pytest.approx(again.as_is, abs=0.02)
    assert "rounded to bfloat16" in again.words("death at 0 days", "jepa") and set(again.as_dict()) == {
        "as_is", "rounded", "lost",
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "lost"), [(0.1, False), (1e-4, True)])
def test_numbers_are_repeated_by_their_error(factor: float, lost: bool) -> None:
    task, sound = make_task(kind="time"), [numbers(rows) for rows in SPLITS]
    rows = [
        replace(to, sample=replace(to.sample, values=of.sample.values))
        for to, of in zip(sound, squeezed(factor), strict=True)
    ]
    again = repeated(task, fit_linear(task, *rows[:2]), *rows)
    assert again.lost == lost and (again.rounded > 1.3 * again.as_is) == lost


def test_vectors_that_are_all_alike_are_no_error() -> None:
    rows = [replace(each, sample=replace(each.sample, values=np.zeros_like(each.sample.values))) for each in SPLITS]
    again = repeated(make_task(), fit_linear(make_task(), *rows[:2]), *rows)
    assert again.as_is == again.rounded == 0.5 and not again.lost
