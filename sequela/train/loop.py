"""The one training loop."""

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from sequela.model import checkpoint
from sequela.model.decoder import Decoder
from sequela.record.errors import InputError
from sequela.record.progress import Progress, silent
from sequela.tokens.corpus import Corpus
from sequela.tokens.pack import collate
from sequela.train.batches import Batches
from sequela.train.dial import context_of, resolve
from sequela.train.objective import next_token
from sequela.train.optimizer import optimisers, schedule
from sequela.train.score import score, windows
from sequela.train.settings import TrainSettings

LOG = "train.json"


def train(
    corpus: Path, out: Path, settings: TrainSettings | None = None, *, progress: Progress = silent
) -> dict:
    """Pretrain a decoder on the training split of a corpus and write a checkpoint folder into `out`.

    Returns what `train.json` says: parameters, tokens, FLOPs, seconds, and the losses in bits per token and per event
    on training and tuning patients. Raises InputError for a corpus without patients, and when the loss is no
    number any more.
    """
    settings = settings or TrainSettings()
    data, tuning = Corpus.load(corpus, "train"), Corpus.load(corpus, "tuning")
    tokens = windows(data, context_of(settings))
    if len(tokens) == 0:
        raise InputError(f"{corpus} has no training patient: tokenise a larger dataset or change the split.")
    vocabulary = data.tokenizer.vocabulary
    resolved = resolve(settings, len(vocabulary), int(tokens.lengths.sum()))
    settings = resolved.settings
    config = replace(resolved.model, vocabulary=vocabulary.hash, time=data.tokenizer.settings.time)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Decoder(config).initialise(settings.seed).to(device)
    steppers = optimisers(model, settings)
    peaks = [optimiser.param_groups[0]["lr"] for optimiser in steppers]
    rows_per_step, total = max(1, settings.batch_tokens // settings.row_tokens), settings.tokens
    batches = Batches(tokens.lengths, settings.row_tokens, rows_per_step, total, settings.seed)
    started, seen, curve = time.perf_counter(), 0, []
    for step in batches:
        seen = step.after["tokens"]
        share = schedule((step.tokens + seen) / 2 / max(total, seen), settings)
        for optimiser, peak in zip(steppers, peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * share
        count = sum(int((tokens.lengths[row] - 1).sum()) for row in step.rows)
        model.zero_grad()
        nats = 0.0
        for row in step.rows:
            loss, _ = next_token(model, collate(tokens, row))
            (loss / count).backward()
            nats += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimiser in steppers:
            optimiser.step()
        bits = nats / count / math.log(2)
        if not math.isfinite(bits):
            raise InputError(f"The loss became {bits} at step {len(curve)}: lower --learning-rate.")
        curve.append(bits)
        progress(seen, total, bits_per_token=bits, tokens_per_second=seen / (time.perf_counter() - started))
    about = {
        "settings": asdict(settings),
        "dial": resolved.as_dict(),
        "model": config.as_dict(),
        "vocabulary": vocabulary.hash,
        "parameters": config.parameters,
        "steps": len(curve),
        "tokens": seen,
        "flops": 6.0 * config.parameters * seen,
        "seconds": time.perf_counter() - started,
        "train_bits_per_token": float(np.mean(curve[-max(1, len(curve) // 20) :])),
        "tuning": evaluate_loss(model, tuning),
        "curve_bits_per_token": curve,
    }
    checkpoint.save(model, out)
    data.tokenizer.save(out)
    (out / LOG).write_text(json.dumps(about, indent=1))
    return about


def evaluate_loss(model: Decoder, data: Corpus) -> dict[str, float] | None:
    """Bits per token and per event over all patients of a split; None for an empty split."""
    if len(data.patients) == 0:
        return None
    found = score(model, data)
    bits = float(found.nats.sum()) / math.log(2)
    return {"bits_per_token": bits / int(found.tokens.sum()), "bits_per_event": bits / data.events}
