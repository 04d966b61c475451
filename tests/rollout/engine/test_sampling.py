import numpy as np
import torch

from sequela.rollout.engine.sampling import keys, mixed, openings, sample, seeds, uniform

LEAST = 2.0**-23


def of_run(run, patients, times, n):
    """Seeds of n rollouts of each question, [P, n]."""
    key = torch.from_numpy(keys(run, np.array(patients), np.array(times)))
    return torch.stack([seeds(key, torch.full_like(key, number)) for number in range(n)], 1)


def many(count, step=0):
    """One uniform number of each of so many questions."""
    seed = of_run(0, np.arange(count), np.zeros(count, np.int64), 1)[:, 0]
    return uniform(seed, torch.full_like(seed, step))


def test_mixed_is_splitmix64():
    """The first outputs of its published implementation, from the seed 1234567."""
    gamma, state, out = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        state = (state + gamma) % 2**64
        x = torch.tensor([state - 2**64 if state >= 2**63 else state])
        out.append(int(mixed(x)) % 2**64)
    assert out == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_numbers_are_uniform_and_independent():
    streams = torch.stack([many(2000, step) for step in range(20)])
    assert (streams >= 0).all() and (streams < 1).all()
    counts = torch.histc(streams, 20, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi-squared, 19 degrees of freedom, p about 0.001
    correlation = torch.corrcoef(streams)
    assert (correlation - torch.eye(20)).abs().max() < 0.1
    assert torch.equal(streams / LEAST, (streams / LEAST).round())


def test_the_step_is_that_of_each_row():
    seed = torch.arange(5)
    steps = torch.tensor([0, 3, 3, 1, 0])
    whole = torch.stack([uniform(seed, torch.full_like(seed, step)) for step in range(4)])
    assert torch.equal(uniform(seed, steps), whole[steps, torch.arange(5)])
    assert whole.unique().numel() == whole.numel()


def test_seeds_differ_by_patient_time_rollout_and_run():
    base = of_run(0, [1, 2], [5, 5], 3)
    assert base.unique().numel() == 6
    for other in (of_run(1, [1, 2], [5, 5], 3), of_run(0, [1, 2], [6, 6], 3), of_run(0, [3, 4], [5, 5], 3)):
        assert not torch.isin(other, base).any()
    assert keys(0, np.array([5]), np.array([1])) != keys(0, np.array([1]), np.array([5]))


def test_a_seed_does_not_depend_on_its_neighbours():
    assert torch.equal(of_run(0, [3, 7], [9, 9], 4)[1:], of_run(0, [7], [9], 4))


def test_samples_follow_the_mass():
    """It need not sum to 1; rows need not sum to the same."""
    n = 20_000
    mass = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    whole = mass * (torch.arange(n)[:, None] % 7 + 0.01)
    share = torch.bincount(sample(whole, many(n)), minlength=6) / n
    assert (share[mass == 0] == 0).all()
    error = 4 * (mass * (1 - mass) / n).sqrt()
    assert ((share - mass).abs() <= error).all()
    wrong = torch.tensor([0.0, 0.48, 0.0, 0.32, 0.2, 0.0])  # negative control
    assert ((share - wrong).abs() > error).any()


def test_no_token_without_mass_is_drawn_at_the_edges():
    edges = torch.tensor([0.0, LEAST, 0.5, 1 - LEAST])
    for scale in (1.0, 1e-30, 3e4, 1 / 3):
        mass = torch.tensor([0.0, 0.7, 0.0, 0.3, 0.0]) * scale
        assert sample(mass.expand(4, 5), edges).tolist() == [1, 1, 1, 3]
        only = torch.tensor([0.0, 0.0, 1.0, 0.0]) * scale
        assert sample(only.expand(4, 4), edges).tolist() == [2, 2, 2, 2]


def test_no_token_without_mass_is_drawn_from_any_sum():
    """Where the sum is one that float32 rounds, over thousands of tokens, most of them without mass."""
    random = torch.Generator().manual_seed(0)
    mass = torch.rand(64, 5000, generator=random) ** 8
    mass[:, torch.rand(5000, generator=random) < 0.9] = 0
    mass[:, -600:] = 0
    for edge in (0.0, LEAST, 0.5, 1 - LEAST):
        drawn = sample(mass, torch.full((64,), edge))
        assert (mass[torch.arange(64), drawn] > 0).all()


def opened(questions: int, n: int) -> torch.Tensor:
    """The first uniform numbers of n rollouts of each question, [P, n]."""
    key = torch.from_numpy(keys(3, np.arange(questions), np.zeros(questions, np.int64)))
    return torch.stack([openings(key, torch.full_like(key, number)) for number in range(n)], 1)


def test_openings_are_uniform_over_the_questions_and_the_halves_independent():
    u = opened(4000, 12)
    assert (u >= 0).all() and (u < 1).all() and torch.equal(u / LEAST, (u / LEAST).round())
    for column in u.T:
        counts = torch.histc(column, 20, 0, 1)
        assert ((counts - 200) ** 2 / 200).sum() < 45
    assert torch.corrcoef(torch.stack([u[:, 0], u[:, 1]]))[0, 1].abs() < 0.06
    joint = torch.histogram(u[:, :1] - u[:, 1:2], 10, range=(-1, 1)).hist  # of independent ones: a triangle
    wanted = 4000 * (torch.arange(1, 20, 2).sub(10).abs().neg().add(10)) / 50
    assert ((joint - wanted) ** 2 / wanted).sum() < 28
    negative = torch.histogram(u[:, :1] - u[:, 2:3], 10, range=(-1, 1)).hist  # of one half they are tied
    assert ((negative - wanted) ** 2 / wanted).sum() > 280


def test_openings_of_one_question_are_spread_evenly():
    """Shares of an event of probability .3 among 10: less than a third of the variance of independent draws."""
    u = opened(2000, 10)
    variance = (u < 0.3).float().mean(1).var()
    seed = of_run(0, np.arange(2000), np.zeros(2000, np.int64), 10)
    free = (uniform(seed.flatten(), torch.zeros(20_000, dtype=torch.int64)).view(2000, 10) < 0.3).float().mean(1).var()
    assert variance < 0.35 * 0.3 * 0.7 / 10
    assert free > 0.85 * 0.3 * 0.7 / 10
