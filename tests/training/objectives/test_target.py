"""The moving average that encodes futures: what it follows, what it sees, and that nothing else moves it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.training.data import windows_of
from sequela.training.objectives.objective import Setup
from sequela.training.objectives.state_jepa import StateJepa
from sequela.training.objectives.target import Encodable, Target, means_by, normalized, rising
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings

CPU = torch.device("cpu")


def small(seed=0):
    config = ModelConfig(
        20, hidden_size=16, heads=2, kv_heads=2, head_dim=8, intermediate_size=32, layers=1, context=64
    )
    return Decoder(config).initialize(seed)


def futures_of(*rows):
    rows = [np.array(row) for row in rows]
    return Ragged(np.concatenate(rows), offsets_of(np.array([len(row) for row in rows])))


def test_it_follows_by_its_decay_in_single_precision_and_keeps_no_gradient():
    decoder, target = small(), Target(small())
    mine = [weight.clone() for weight in target.parameters()]
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(1.0)
    target.follow(decoder, 0.996)
    for weight, before, theirs in zip(target.parameters(), mine, decoder.parameters(), strict=True):
        torch.testing.assert_close(weight, 0.996 * before + 0.004 * theirs)
        assert not weight.requires_grad and weight.dtype == torch.float32
    for _ in range(3):
        target.follow(decoder, 1.0)  # at the end of a run it stands still
    torch.testing.assert_close(next(target.parameters()), 0.996 * mine[0] + 0.004 * next(decoder.parameters()))
    target.follow(decoder, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), decoder.parameters(), strict=True))


def test_small_steps_do_not_vanish():
    """As they would in bfloat16, whose numbers near 1 lie 1 in 128 apart: the negative control."""
    decoder, target = small(), Target(small())
    weight, mine = decoder.norm.weight, target.decoder.norm.weight
    with torch.no_grad():
        weight.add_(0.01)
        before, low = mine.clone(), mine.bfloat16()
    for _ in range(50):
        target.follow(decoder, 0.996)
        low.lerp_(weight.detach().bfloat16(), 0.004)
    assert (mine > before).all() and torch.equal(low, before.bfloat16())


def test_the_decay_rises_from_where_it_begins_to_one():
    decays = [rising(0.99, done) for done in np.linspace(0, 1, 11)]
    assert decays[0] == 0.99 and decays[-1] == 1 and decays == sorted(decays)
    assert rising(0.99, 0.5) == pytest.approx(0.995)


def test_each_future_is_encoded_as_if_alone():
    target = Target(small())
    rows = [1, 5, 9, 9], [3], [7, 2, 11]
    together = target.means(Encodable.of(futures_of(*rows), 8, CPU), "fp32")
    for number, row in enumerate(rows):
        alone = target.means(Encodable.of(futures_of(row), 1, CPU), "fp32")
        torch.testing.assert_close(together[number], alone[0])
    changed = target.means(Encodable.of(futures_of([2, 5, 9, 9], *rows[1:]), 8, CPU), "fp32")
    assert torch.equal(changed[1:], together[1:]) and not torch.allclose(changed[0], together[0])
    assert not together.requires_grad


def test_nothing_to_encode_is_nothing():
    nothing = Encodable.of(Ragged(np.zeros(0, np.int64), np.zeros(1, np.int64)), 8, CPU)
    assert nothing.inputs is None and Target(small()).means(nothing, "fp32").shape == (0, 16)


def test_means_are_of_groups_and_padding_is_none():
    flat = torch.arange(8.0).reshape(4, 2)
    found = means_by(flat, torch.tensor([1, 0, 1, 3]), 3)
    assert found.tolist() == [[2.0, 3.0], [2.0, 3.0], [0.0, 0.0]]  # the last group is empty, the last row padding
    assert normalized(flat).mean(-1).abs().max() < 1e-6


def test_a_change_of_the_history_leaves_every_target_as_it_was(world_corpus):
    """To the bit, through collation: a code of each patient before the first state of any."""
    corpus = Corpus.load(world_corpus, "train")
    objective, windows, moved = world_model(corpus), windows_of(corpus, 64), 0
    for patient in range(12):
        row = np.array([patient])
        batch = objective.collate(windows, row)
        before, first = targets(objective, batch), min(batch.inputs.aside.tolist(), default=0)
        if first < 2 or not len(before):
            continue
        changed = objective.collate(replaced(windows, corpus, patient, slice(1, first)), row)
        assert torch.equal(targets(objective, changed), before)
        later = objective.collate(replaced(windows, corpus, patient, slice(first, None)), row)  # the negative control
        moved += not torch.equal(targets(objective, later), before)
    assert moved > 3


def targets(objective, batch):
    term = objective.terms["futures"]
    return term.means(batch.own["futures"].futures)


def replaced(windows: Windows, corpus: Corpus, patient: int, places: slice) -> Windows:
    """The same, with other events, of the same times, at these places of a patient."""
    moves, rows = corpus.tokenizer.minutes_V, [np.array(windows.tokens[n]) for n in range(len(windows.tokens))]
    other = np.flatnonzero(moves == 0)[-1]
    part = rows[patient][places]
    rows[patient][places] = np.where(moves[part] == 0, other, part)
    return replace(windows, tokens=futures_of(*rows))


def world_model(corpus):
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=16, heads=2, kv_heads=2, head_dim=8, intermediate_size=32,
        layers=1, context=64,
    )  # fmt: skip
    settings = TrainSettings(
        objective="state_jepa", options=("stages='at_once'", "horizons=[0, 5]", "share=10.0"), row_tokens=512
    )
    setup = Setup(settings=settings, tokenizer=corpus.tokenizer, rest=corpus.rest)
    return StateJepa(Decoder(config).initialize(0), setup)


def test_neither_validation_nor_a_save_puts_the_average_in_place_of_the_weights(world_corpus, tmp_path):
    settings = TrainSettings(
        objective="state_jepa", options=("stages='at_once'", "decay=0.5"), layers=1, width=16, heads=2, context=64,
        row_tokens=256, batch_tokens=256, tokens=1024, checks=0, parallel="none",
    )  # fmt: skip
    plan = RunPlan.of(world_corpus, settings)
    run = Run(plan, ProcessGroup(device=CPU))
    for step, passes in run.feed():
        run.take(step, passes)
        if run.steps == 2:
            break
    before = {name: x.clone() for name, x in run.objective.state_dict().items()}
    run.whole().validate(plan.tuning, plan.sample(1))
    run.save(tmp_path / "checkpoints")
    run.whole().save(tmp_path)
    after = run.objective.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    mine, average = (before[f"{name}.norm.weight"] for name in ("next_token.decoder", "terms.futures.target.decoder"))
    assert not torch.equal(mine, average)  # so that one in place of the other would be seen
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("target" in name or "predictor" in name for name in saved)
    assert any(torch.equal(x, mine) for x in saved.values())
    assert not any(torch.equal(x, average) for x in saved.values())
