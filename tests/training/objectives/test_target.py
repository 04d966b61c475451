"""The moving average: how it follows, what a future is to it, and that nothing else moves it."""

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


@pytest.fixture
def decoder():
    config = ModelConfig(
        20, hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64, layers=1, context=64
    )
    return Decoder(config).initialize(0)


def test_the_decay_rises_from_its_start_to_one():
    decays = [rising(0.9, done) for done in np.linspace(0, 1, 11)]
    assert decays[0] == pytest.approx(0.9) and decays[5] == pytest.approx(0.95) and decays[-1] == 1
    assert decays == sorted(decays)


def test_it_follows_by_its_decay_in_fp32_and_learns_nothing(decoder):
    target = Target(decoder)
    weight, mine = decoder.norm.weight, target.decoder.norm.weight
    weight.data += 1
    target.follow(decoder, 0.75)
    torch.testing.assert_close(mine, weight - 0.75)
    target.follow(decoder, 0.0)
    assert torch.equal(mine, weight) and mine is not weight and mine.dtype == torch.float32
    small = mine + 1e-5  # of which bf16 would lose all
    weight.data += 1e-2
    target.follow(decoder, 0.999)
    torch.testing.assert_close(mine, small, rtol=0, atol=1e-7)
    assert not any(weight.requires_grad for weight in target.parameters())


def test_a_future_is_the_mean_of_its_tokens_whatever_lies_beside_it(decoder):
    target, rows = Target(decoder), [np.array([3, 4, 5]), np.array([6]), np.array([7, 8])]
    side_by_side = Encodable.of(Ragged(np.concatenate(rows), np.array([0, 3, 4, 6])), 8, CPU)
    means = target.means(side_by_side, "fp32")
    for ids, mean in zip(rows, means, strict=True):
        alone = target.decoder.hidden(torch.from_numpy(ids)[None])[0].mean(0)
        torch.testing.assert_close(mean, alone, rtol=1e-4, atol=1e-5)
    nothing = Encodable.of(Ragged(np.zeros(0, np.int64), np.zeros(1, np.int64)), 8, CPU)
    assert nothing.inputs is None and target.means(nothing, "fp32").shape == (0, 32)


def test_means_of_groups_leave_out_what_is_in_none():
    flat = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]])
    assert means_by(flat, torch.tensor([1, 1, 2]), 2).tolist() == [[0, 0], [2, 3]]
    x = normalized(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(x.mean(1), torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.var(1, correction=0), torch.ones(5), rtol=1e-3, atol=0)


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
    return replace(windows, tokens=Ragged(np.concatenate(rows), offsets_of(np.array([len(row) for row in rows]))))


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
