"""Text takes the same road as EHR: another tokenizer's corpus, the ordinary training run, the plain decoding loop."""

import numpy as np
import torch

from sequela.model import checkpoint
from sequela.record.events import Events
from sequela.tokens.corpus import write_corpus
from sequela.tokens.ragged import Ragged
from sequela.tokens.tokenizer import load
from sequela.tokens.vocabulary import BOS
from sequela.training.loop import train
from sequela.training.settings import TrainSettings
from tests.tokens.byte_text import END, ByteTokenizer, events_of, ids

ORGANS = ("heart", "lung", "liver", "kidney")


def sheets(count: int, seed: int) -> Events:
    """Patients with a question and an answer: the organ that is asked about is healthy."""
    random = np.random.default_rng(seed)
    return events_of({
        patient: [f"{organ}?", f"{organ} ok"] for patient, organ in enumerate(random.choice(ORGANS, count))
    })  # fmt: skip


def continued(model, prompt: list[int]) -> list[int]:
    """The most likely token, again and again, until an event ends."""
    row = list(prompt)
    with torch.no_grad():
        while len(row) < len(prompt) + 20:
            row.append(int(model.logits(torch.tensor([row]))[0, -1].argmax()))
            if row[-1] == END:
                break
    return row


def test_a_model_of_text_is_trained_and_answers_questions(tmp_path):
    splits = {"train": [sheets(200, 0), sheets(200, 1)], "tuning": [sheets(20, 2)]}
    write_corpus(ByteTokenizer(), splits, tmp_path / "corpus")
    (tmp_path / "model").mkdir()
    settings = TrainSettings(
        depth=1, context=64, batch_tokens=512, epochs=8, learning_rate=6e-3, matrix_rate=6e-3, checks=1
    )
    summary = train(tmp_path / "corpus", tmp_path / "model", settings)
    assert summary["tuning"]["bits_per_token"] < 0.3
    assert list(summary["tuning"]["kinds"]) == ["all"]  # a tokenizer without types

    model, tokenizer = checkpoint.load(tmp_path / "model"), load(tmp_path / "model")
    assert isinstance(tokenizer, ByteTokenizer)
    for organ in ORGANS:
        row = continued(model, [BOS, *ids(f"{organ}?")])
        texts = tokenizer.decode(Ragged.of([row]), np.zeros(1, np.int64)).text.to_list()
        assert texts == [f"{organ}?", f"{organ} ok"]
