"""The outcomes that are asked for, as tokens and as places in the grammar where tokens decide them."""

from __future__ import annotations

import numpy as np

from sequela.errors import InputError
from sequela.record.schema import DEATH
from sequela.rollout.request import Request
from sequela.rollout.tracker import Stop, Watch
from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer

FOREVER = 100 * 525_960  # minutes: a hundred years


class Outcomes:
    """Finds what decides an outcome: a token wherever it comes, or a later part of a code after its first parts.

    A code in parts matches a pattern from the part on with which all codes that go on from there match.
    """

    def __init__(self, tokenizer: EhrTokenizer, grammar: Grammar):
        self.tokenizer, self.grammar = tokenizer, grammar
        size = len(tokenizer.vocabulary)
        starts = np.flatnonzero((tokenizer.place == 0) | (tokenizer.place == 1))
        parts = grammar.pair_child > 0
        node, token = np.divmod(grammar.pair_key[parts], size)
        child = grammar.pair_child[parts]
        self.code = {int(first): self._name((tokenizer.codes[first],)) for first in starts}
        paths = {int(first): (tokenizer.codes[first],) for first in starts}
        self.steps: list[tuple[int, int, int]] = []  # (node, token, child), parents first
        for one in np.argsort(child):
            step = int(node[one]), int(token[one]), int(child[one])
            paths[step[2]] = (*paths[step[0]], tokenizer.codes[step[1]])
            self.code[step[2]] = self._name(paths[step[2]])
            self.steps.append(step)
        self.goes_on = {step[0] for step in self.steps}

    def _name(self, parts: tuple[str, ...]) -> str:
        return parts[0] if self.tokenizer.settings.joint else join_parts(parts)

    def of(self, pattern: str, task: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """What decides that an event's code matches `pattern`, in which a trailing * stands for any rest.

        Returns:
            bool [V], tokens that do wherever they come; and pairs of a node and a token that does after it.

        Raises:
            InputError: where no code that the model knows matches, or a longer code begins as an exact one does.
        """
        bare, star = pattern.removesuffix("*"), pattern.endswith("*")

        def matches(node: int) -> bool:
            return self.code[node].startswith(bare) if star else self.code[node] == bare

        size = len(self.tokenizer.vocabulary)
        found = [node for node in self.code if matches(node)]
        if not found:
            raise InputError(
                f"Task {task}: no token matches {pattern!r}; the training data hold no such event, or too few "
                "patients with one."
            )
        longer = [node for node in found if node in self.goes_on]
        if longer and not star:
            raise InputError(
                f"Task {task}: longer codes begin with {pattern!r} too; ask for all of them, as {bare + '*'!r}."
            )
        tokens = np.zeros(size, bool)
        tokens[[node for node in found if node < size]] = True
        pairs = [(node, token) for node, token, child in self.steps if matches(child) and not matches(node)]
        return tokens, pairs


def watch_of(tokenizer: EhrTokenizer, grammar: Grammar, requests: list[Request]) -> Watch:
    """What the engine watches for the requests, in their order.

    Raises:
        InputError: see `Outcomes.of`; and for an end that is told by more than one token.
    """
    outcomes = Outcomes(tokenizer, grammar)
    size = len(tokenizer.vocabulary)
    outcome, ends = (np.zeros((len(requests), size), bool) for _ in range(2))
    after = []
    for number, request in enumerate(requests):
        for pattern in request.outcome:
            tokens, pairs = outcomes.of(pattern, request.name)
            if request.counted != "none":
                outcome[number] |= tokens
                after.extend((node, token, number) for node, token in pairs)
        for pattern in request.ends:
            tokens, pairs = outcomes.of(pattern, request.name)
            if pairs:
                raise InputError(
                    f"Task {request.name}: the end {pattern!r} is told by more than one token; name whole categories."
                )
            ends[number] |= tokens
    return Watch(
        outcome,
        ends,
        np.array(
            [FOREVER if one.horizon_minutes is None else one.horizon_minutes for one in requests], np.int64
        ),
        np.array(after, np.int64).reshape(-1, 3),
        np.array([one.counted == "all" for one in requests]),
    )


def stop_of(tokenizer: EhrTokenizer, watch: Watch, limit: int) -> Stop:
    """A future ends at death, when every question about it is settled, or after `limit` tokens."""
    death = np.array([code == DEATH for code in tokenizer.codes])
    return Stop(death, int(watch.horizon.max()), limit)
