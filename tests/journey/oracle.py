"""A model that knows the world of renewals: its weights are the true probabilities, so that only simulation can err."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import torch

from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.record.events import Events
from sequela.record.schema import DEATH
from sequela.record.worlds.renewal import MINUTES, RenewalWorld
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenizer import EhrTokenizer

TRAINING = 4000  # patients, of whom the lengths of gaps within a class are learnt
FOLLOWED = (3000.0, 4000.0)  # days: until they die, so that no gap is cut off


def oracle(world: RenewalWorld, folder: Path) -> Path:
    """A checkpoint. What comes next depends on the last token alone: a gap on the scan, an event on nothing."""
    events = Events.of(world.events(TRAINING, 1, FOLLOWED))
    tokenizer = fit(events, TokenSettings(), dated=False)
    tokenizer.save(folder)
    fit_grammar(tokenizer, [encode(tokenizer, events).tokens]).save(folder)
    likely = _next(world, tokenizer)
    size = len(likely)
    config = ModelConfig(
        size, hidden_size=size, heads=1, kv_heads=1, head_dim=2, intermediate_size=2, layers=1, context=64,
        norm_epsilon=0.0, tied_embeddings=False, vocabulary=tokenizer.vocabulary.hash,
    )  # fmt: skip
    decoder = Decoder(config)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.zero_()  # the block adds nothing to the stream
        decoder.embedding.weight.copy_(torch.eye(size))
        decoder.norm.weight.fill_(size**-0.5)
        decoder.head.weight.copy_(torch.from_numpy(np.log(likely.T + 1e-12)))
    checkpoint.save(decoder, folder)
    return folder


def _next(world: RenewalWorld, tokenizer: EhrTokenizer) -> np.ndarray:
    """The probability of each token after each token, [V, V]."""
    index, edges = tokenizer.vocabulary.index, tokenizer.intervals.edges / MINUTES
    times = [index[name] for name in tokenizer.intervals.names]
    scans = [index[code] for code, _ in world.sooner]
    likely = np.zeros((len(index), len(index)))
    likely[:, scans] = (1 - world.death) / len(scans)
    likely[:, index[DEATH]] = world.death
    for code, row in zip([code for code, _ in world.sooner], scans, strict=True):
        likely[row] = 0
        likely[row, times] = np.diff(world.within(code, np.append(edges, np.inf)))
    return likely


def with_intervals(folder: Path, change: Callable[[Intervals], Intervals], out: Path) -> Path:
    """The same model whose tokenizer has other intervals."""
    copytree(folder, out)
    tokenizer = EhrTokenizer.load(folder)
    replace(tokenizer, intervals=change(tokenizer.intervals)).save(out)
    return out
