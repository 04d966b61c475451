import numpy as np
import torch

from sequela.rollout.sampling import sample, seeds, uniform


def test_uniform_numbers_are_uniform_and_independent():
    streams = torch.stack(
        [uniform(seeds(0, np.arange(2000), np.zeros(2000, np.int64), 1)[:, 0], step) for step in range(20)]
    )
    assert (streams >= 0).all() and (streams < 1).all()
    counts = torch.histc(streams, 20, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi-squared, 19 degrees of freedom, p about 0.001
    correlation = torch.corrcoef(streams)
    assert (correlation - torch.eye(20)).abs().max() < 0.1


def test_seeds_differ_by_patient_time_rollout_and_run():
    base = seeds(0, np.array([1, 2]), np.array([5, 5]), 3)
    assert base.unique().numel() == 6
    for other in (
        seeds(1, np.array([1, 2]), np.array([5, 5]), 3),
        seeds(0, np.array([1, 2]), np.array([6, 6]), 3),
    ):
        assert not torch.isin(other, base).any()


def test_a_seed_does_not_depend_on_its_neighbours():
    alone = seeds(0, np.array([7]), np.array([9]), 4)
    assert torch.equal(seeds(0, np.array([3, 7]), np.array([9, 9]), 4)[1:], alone)


def test_samples_follow_the_probabilities():
    probability = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]).expand(20_000, 6)
    drawn = sample(probability, uniform(seeds(0, np.arange(20_000), np.zeros(20_000, np.int64), 1)[:, 0], 0))
    share = torch.bincount(drawn, minlength=6) / 20_000
    assert (share[probability[0] == 0] == 0).all()
    assert ((share - probability[0]).abs() < 4 * (0.25 / 20_000) ** 0.5).all()


def test_tokens_without_probability_are_not_drawn_at_the_edges():
    probability = torch.tensor([[0.0, 0.7, 0.3, 0.0]])
    edges = torch.tensor([0.0, 1 - 2.0**-23])
    assert [sample(probability, u[None]).item() for u in edges] == [1, 2]
