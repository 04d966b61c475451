from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model import flops
from sequela.training.data import Step, feed
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings

SETTINGS = TrainSettings(depth=1, context=64, batch_tokens=256, epochs=1, precision="fp32")


@pytest.fixture(scope="module")
def plan(world_corpus):
    return RunPlan.of(world_corpus, SETTINGS)


def gradients(plan, rows):
    """The gradients of one step of the given rows, and its loss and norm."""
    run = Run(plan, ProcessGroup())
    before = plan.batches().state()
    step = Step(rows, 0, before | {"tokens": int(plan.windows.lengths[np.concatenate(rows)].sum())})
    ((step, passes),) = feed([step], run.collate)
    result = run.take(step, passes)
    assert run.steps == 1 and run.tokens == step.after["tokens"]
    return [weight.grad for weight in run.objective.parameters()], result


def test_the_gradient_of_rows_one_by_one_is_that_of_all_at_once(plan):
    numbers = np.arange(24)
    once, expected = gradients(plan, [numbers])
    for rows in ([numbers[:5], numbers[5:6], numbers[6:]], [numbers[i : i + 1] for i in range(24)]):
        several, result = gradients(plan, rows)
        assert result.loss == pytest.approx(expected.loss, rel=1e-4)
        assert result.gradient == pytest.approx(expected.gradient, rel=1e-4)
        assert result.weight == expected.weight
        for one, other in zip(once, several, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_last_step_that_overshoots_still_learns(world_corpus):
    settings = replace(SETTINGS, epochs=None, tokens=20)
    run = Run(RunPlan.of(world_corpus, settings), ProcessGroup())
    ((step, passes),) = run.feed()
    assert step.after["tokens"] > 2 * settings.tokens
    run.take(step, passes)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in run.optimizers]
    assert rates == pytest.approx([peak * run.stopping.rate(10) for peak in run.peaks])
    assert min(rates) > 0


def test_a_gradient_of_other_windows_is_another(plan):
    """The control."""
    once, other = (gradients(plan, [np.arange(first, 24)])[0][0] for first in (0, 1))
    assert not torch.allclose(once, other, rtol=1e-3, atol=1e-6)


def test_a_step_counts_its_tokens_and_flops_exactly(plan):
    run = Run(plan, ProcessGroup())
    ((step, passes), *_) = feed([next(plan.batches())], run.collate)
    lengths = run.lengths(step)
    assert lengths.sum() == step.after["tokens"]
    ends = sum(len(batch.ended) for batch, _ in passes)  # of records that are known to go on
    assert 0 < ends < len(lengths) and run.take(step, passes).weight == lengths.sum() - len(lengths) + ends
    assert run.flops == flops.train(plan.config, lengths)


def test_the_steps_of_a_run_know_which_windows_are_of_one_patient(world_corpus):
    cut, whole = (RunPlan.of(world_corpus, TrainSettings(depth=1, context=size)) for size in (32, 256))
    assert (cut.batches().patient == cut.windows.patient).all()
    assert whole.batches().patient is None  # the control: nobody is cut


def test_checks_on_the_way_take_little_of_the_work(world_corpus):
    for checks, epochs in ((1, 1), (10, 5)):
        plan = RunPlan.of(world_corpus, TrainSettings(depth=1, context=64, epochs=epochs, checks=checks))
        tokens = int(plan.tuning.tokens.lengths[plan.sample()].sum())
        assert 0 < checks * tokens <= 0.12 * plan.settings.tokens


def test_a_check_has_a_patient_however_short_the_run(world_corpus):
    assert len(RunPlan.of(world_corpus, TrainSettings(depth=1, context=64, tokens=20)).sample()) == 1


def test_runs_are_the_same_where_their_results_are(world_corpus, plan):
    again = RunPlan.of(world_corpus, TrainSettings(**{**vars(SETTINGS), "checkpoint_minutes": 1.0}))
    other = RunPlan.of(world_corpus, TrainSettings(**{**vars(SETTINGS), "seed": 1}))
    assert again.identity() == plan.identity() != other.identity()


def test_rows_that_processes_cannot_share_are_refused(plan):
    with pytest.raises(InputError, match="batch_tokens"):
        Run(plan, ProcessGroup(rank=0, size=3))
