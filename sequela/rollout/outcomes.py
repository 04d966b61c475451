"""Compiles an outcome's code patterns into token sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sequela.errors import InputError, closest, coming_near
from sequela.record.spelling import canonical, matches_code
from sequela.rollout.request import Request
from sequela.rollout.tracker import StopRule, WatchedOutcomes
from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import translate

NEAR = 3  # codes that come near to one without a token
FOREVER = 100 * 525_960  # minutes: a hundred years


class Outcomes:
    """Finds the tokens that decide an outcome: anywhere, or only after the first parts of a code.

    A code that is written in parts matches a pattern as soon as all codes that continue those parts match it.
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
        for pair in np.argsort(child):
            step = int(node[pair]), int(token[pair]), int(child[pair])
            paths[step[2]] = (*paths[step[0]], tokenizer.codes[step[1]])
            self.code[step[2]] = self._name(paths[step[2]])
            self.steps.append(step)
        self.goes_on = {step[0] for step in self.steps}

    def _name(self, parts: tuple[str, ...]) -> str:
        return parts[0] if self.tokenizer.settings.joint else join_parts(parts)

    def _near(self, pattern: str) -> str:
        """A hint at what may have been meant: what the code maps translate it to, or similar codes."""
        bare, star = pattern.removesuffix("*"), "*" if pattern.endswith("*") else ""
        targets = [f"{target}{star}" for target in translate([bare], self.tokenizer.maps)[0][0]]
        known = [target for target in targets if any(matches_code(name, (target,)) for name in self.code.values())]
        if known and not matches_code(targets[0], (pattern,)):
            return f", which the model knows as {' and '.join(known)}"
        return coming_near(closest(canonical(bare), self.code.values(), NEAR, cutoff=0.5))

    def of(self, pattern: str, task: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """What decides that an event's code matches `pattern`, in which a trailing * stands for any rest.

        Returns:
            bool [V], tokens that decide it wherever they come; and pairs of a node and a token that decides it there.

        Raises:
            InputError: if the model knows no matching code, or a longer code begins with an exact one.
        """

        def matches(node: int) -> bool:
            return matches_code(self.code[node], (pattern,))

        size = len(self.tokenizer.vocabulary)
        matching = [node for node in self.code if matches(node)]
        if not matching:
            raise InputError(
                f"Task {task}: no token matches {pattern!r}{self._near(pattern)}; the training data hold no such "
                "event, or too few patients with one: name another code."
            )
        longer = [node for node in matching if node in self.goes_on]
        if longer and not pattern.endswith("*"):
            raise InputError(
                f"Task {task}: longer codes begin with {pattern!r} too; ask for all of them, as {pattern + '*'!r}."
            )
        tokens = np.zeros(size, bool)
        tokens[[node for node in matching if node < size]] = True
        pairs = [(node, token) for node, token, child in self.steps if matches(child) and not matches(node)]
        return tokens, pairs


def watched_outcomes(
    tokenizer: EhrTokenizer, grammar: Grammar, requests: Sequence[Request]
) -> WatchedOutcomes:
    """What is watched for the requests, in their order.

    Raises:
        InputError: see `Outcomes.of`; also for an end that takes more than one token.
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
                    f"Task {request.name}: the end {pattern!r} takes more than one token; name whole categories."
                )
            ends[number] |= tokens
    return WatchedOutcomes(
        outcome,
        ends,
        np.array(
            [FOREVER if request.horizon_minutes is None else request.horizon_minutes for request in requests],
            np.int64,
        ),
        np.array(after, np.int64).reshape(-1, 3),
        np.array([request.counted == "all" for request in requests]),
    )


def stop_rule(tokenizer: EhrTokenizer, watch: WatchedOutcomes, limit: int) -> StopRule:
    """A rollout ends at death, when every outcome is settled, or after `limit` tokens."""
    death = np.zeros(len(tokenizer.vocabulary), bool)
    death[tokenizer.final] = True
    return StopRule(death, int(watch.horizon.max()), limit)
