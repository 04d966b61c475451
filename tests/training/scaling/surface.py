"""A known surface of the loss, and studies drawn from it."""

import numpy as np

from sequela.training.scaling.parametric import effective
from sequela.training.scaling.plan import Candidate, ladder
from sequela.training.scaling.runs import FinishedRun

BUDGETS = tuple(np.geomspace(1e18, 1e21, 5))


class Surface:
    """L(N, D) = floor + A / N^alpha + B / D^beta with C = 6 N D."""

    def __init__(self, floor: float, a: float, alpha: float, b: float, beta: float) -> None:
        self.floor, self.a, self.alpha, self.b, self.beta = floor, a, alpha, b, beta
        self.parameters_exponent = beta / (alpha + beta)
        self.loss_exponent = -alpha * beta / (alpha + beta)

    def loss(self, parameters: float, tokens: float) -> float:
        return float(self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def optimum(self, budget: float) -> float:
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        return ratio * (budget / 6) ** self.parameters_exponent

    def study(
        self, seed=0, *, noise=0.003, budgets=BUDGETS, sizes=7, unique=np.inf, off=1.0, optimum=None
    ) -> list[FinishedRun]:
        """One run for each budget and size; sizes around `off` times the optimum; noise of ln loss."""
        draw, runs = np.random.default_rng(seed), []
        for budget in budgets:
            for place in range(sizes):
                size = off * (optimum or self.optimum)(budget) * 2.0 ** (place - (sizes - 1) / 2)
                tokens = budget / (6 * size)
                loss = self.loss(size, float(effective(tokens, unique))) * np.exp(noise * draw.normal())
                runs.append(FinishedRun(budget, size, tokens, loss, unique))
        return runs


PUBLISHED = Surface(1.8172, 482.01, 0.3478, 2085.43, 0.3658)  # Chinchilla's data, arXiv 2404.10102
STEEP = Surface(0.5, 20.0, 0.30, 500.0, 0.45)  # exponents far from equal


def shapes() -> list[Candidate]:
    """Decoders of six FLOPs a parameter and token."""
    return ladder(lambda d, w: (16 * d * w * w, 6.0 * 16 * d * w * w), range(1, 65), range(32, 8193, 32))
