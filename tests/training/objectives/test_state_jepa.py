"""The world model's objective: what it may not see, what it trains, and that it notices a collapse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.model.states import StateTokens
from sequela.tokens.corpus import Corpus
from sequela.training.data import windows_of
from sequela.training.objectives.collapse import panel
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Setup, named
from sequela.training.objectives.state_jepa import StateJepa
from sequela.training.settings import TrainSettings


@pytest.fixture(scope="module")
def corpus(world_corpus):
    return Corpus.load(world_corpus, "train")


def objective_of(corpus, *options, seed=0, **more):
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64,
        layers=1, context=64,
    )  # fmt: skip
    settings = TrainSettings(objective="state_jepa", options=options, seed=seed, row_tokens=512)
    setup = Setup(settings=settings, tokenizer=corpus.tokenizer, rest=corpus.rest, **more)
    return StateJepa(Decoder(config).initialize(seed), setup)


@pytest.fixture
def at_once(corpus):
    return objective_of(corpus, "stages='at_once'")


@pytest.fixture
def windows(corpus):
    return windows_of(corpus, 64)


ROW = np.arange(8)


def futures_in(objective):
    return objective.terms["futures"]


def test_states_leave_next_tokens_alone(at_once, corpus, windows):
    batch = at_once.collate(windows, ROW)
    plain = NextToken(at_once.decoder, at_once.setup)
    alone = plain(plain.collate(windows, ROW)).total
    loss = at_once(batch)
    assert len(batch.idle) > 20 and batch.weight == plain.collate(windows, ROW).weight
    assert loss.parts["bits_per_token"] == pytest.approx(float(alone.detach()), rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(float(sum(loss.parts.values())), rel=1e-5)
    assert loss.parts["futures"] > 0 and loss.parts["empty"] > 0


def test_a_future_knows_nothing_of_the_history_and_a_state_nothing_of_the_future(at_once, windows):
    batch = at_once.collate(windows, ROW)
    state, future = hidden_of(at_once, batch), future_of(at_once, batch)
    row = batch.inputs
    first = int(row.aside[0])
    before, after = row.ids.clone(), row.ids.clone()
    before[0, 1] = 7
    after[0, first + 1 :][after[0, first + 1 :] > 0] = 7
    changed = with_ids(batch, before)
    assert torch.equal(future_of(at_once, changed), future)
    assert not torch.equal(hidden_of(at_once, changed)[0], state[0])  # negative control
    changed = with_ids(batch, after)
    assert torch.equal(hidden_of(at_once, changed)[0], state[0])
    assert not torch.equal(hidden_of(at_once, changed)[-1], state[-1])


def with_ids(batch, ids):
    return replace(batch, inputs=replace(batch.inputs, ids=ids))


def hidden_of(objective, batch):
    return objective.read(batch.inputs, batch.idle)[1].state


def future_of(objective, batch):
    own = batch.own["futures"]
    return futures_in(objective).target.means(own.futures, "fp32")


def test_the_target_has_no_gradient_and_a_detached_stage_trains_the_predictor_alone(corpus, windows):
    objective = objective_of(corpus)
    assert [stage.only_heads for stage in objective.schedule.stages] == [False, True, False]
    objective.schedule.number.fill_(1)
    loss = objective(objective.collate(windows, ROW))
    with_tokens = torch.autograd.grad(loss.total, objective.decoder.blocks[0].qkv.weight, retain_graph=True)[0]
    plain = NextToken(objective.decoder, objective.setup)
    tokens = torch.autograd.grad(
        plain(plain.collate(windows, ROW)).total, objective.decoder.blocks[0].qkv.weight
    )[0]
    torch.testing.assert_close(with_tokens, tokens, rtol=1e-4, atol=1e-5)
    loss.total.backward()
    assert all(weight.grad is None for weight in futures_in(objective).target.parameters())
    assert all(weight.grad is not None for weight in futures_in(objective).predictor.parameters())
    objective.zero_grad()
    objective.schedule.number.fill_(2)
    objective(objective.collate(windows, ROW)).total.backward()
    assert not torch.allclose(objective.decoder.blocks[0].qkv.weight.grad, tokens, rtol=1e-2)
    assert objective.states.table.grad.abs().sum() > 0


def test_the_target_begins_as_a_copy_and_follows_by_its_decay(corpus):
    objective = objective_of(corpus, "decay=0.9")
    weight, mine = objective.decoder.blocks[0].out.weight, futures_in(objective).target.decoder.blocks[0].out.weight
    weight.data += 1
    objective.after_step(0.3)
    assert not torch.equal(weight, mine)  # next tokens only
    objective.after_step(0.61)
    assert int(objective.schedule.number) == 1 and torch.equal(weight, mine)
    weight.data += 1
    before = mine.clone()
    objective.after_step(0.61)
    torch.testing.assert_close(mine - before, torch.full_like(mine, 0.1), rtol=0.02, atol=0)
    objective.after_step(0.999)
    assert int(objective.schedule.number) == 2
    assert (mine - before).mean() < 0.11  # hardly any more: the decay rises to 1
    kept = objective.state_dict()
    assert kept["schedule.number"] == 2 and "terms.futures.target.decoder.blocks.0.out.weight" in kept


def test_the_same_row_has_the_same_pairs_and_shuffled_ones_those_of_others(corpus, windows):
    one, two = (objective_of(corpus).collate(windows, ROW) for _ in range(2))
    assert torch.equal(one.inputs.ids, two.inputs.ids)
    assert not torch.equal(objective_of(corpus, seed=1).collate(windows, ROW).idle, one.idle)
    one, two = one.own["futures"], two.own["futures"]
    assert torch.equal(one.futures.inputs.ids, two.futures.inputs.ids)
    shuffled = objective_of(corpus, "shuffled=true").collate(windows, ROW).own["futures"]
    assert torch.equal(shuffled.futures.inputs.ids, one.futures.inputs.ids) and not torch.equal(shuffled.pair, one.pair)
    assert sorted(shuffled.pair.tolist()) == sorted(one.pair.tolist())


def test_what_is_saved_is_a_decoder_and_its_state_tokens(at_once, tmp_path):
    at_once.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "model.safetensors", "states.safetensors",
    ]  # fmt: skip
    assert torch.equal(StateTokens.load(tmp_path).table, at_once.states.table)
    assert torch.equal(checkpoint.load(tmp_path).embedding.weight, at_once.decoder.embedding.weight)


def test_a_collapse_is_noticed(at_once, world_corpus):
    tuning = Corpus.load(world_corpus, "tuning")
    healthy = at_once.validate(tuning).details["futures"]
    assert healthy["pairs"] > 50 and healthy["state_spread"] > 0.05 and healthy["rank"] > 2
    for weight in futures_in(at_once).target.parameters():
        weight.zero_()
    with pytest.raises(InputError, match="collapsed: the futures of different patients"):
        at_once.validate(tuning)


def test_the_panel_knows_skill_from_copying():
    random = torch.Generator().manual_seed(0)
    future = torch.randn(500, 16, generator=random)
    target = torch.nn.functional.layer_norm(future, (16,))
    perfect = panel(future, target, future)
    assert perfect.skill == pytest.approx(1) and perfect.rank > 10
    mean = panel(future, target.mean(0).expand_as(target), future)
    assert mean.skill == pytest.approx(0, abs=1e-5)
    same = panel(future.mean(0) + 1e-4 * future, target, future)
    with pytest.raises(InputError, match="the states of different patients"):
        same.check()
    line = panel(torch.outer(future[:, 0], future[0]), target, future)
    assert line.rank == pytest.approx(1, abs=0.01)


def test_options_are_read_and_refused_in_a_sentence(corpus):
    assert named("state_jepa") is StateJepa
    assert futures_in(objective_of(corpus, "anchors=3", "horizons=[1, 2.5]")).options.horizons == (1.0, 2.5)
    with pytest.raises(InputError, match="options of state_jepa: there is no setting 'anchor'"):
        objective_of(corpus, "anchor=3")
    with pytest.raises(InputError, match="`stages` must be one of curriculum"):
        objective_of(corpus, "stages='all'")
    with pytest.raises(InputError, match="is not NAME=VALUE"):
        objective_of(corpus, "anchors:3")


LABS = ("stages='at_once'", "actions=['lab']")


def test_interventions_are_told_to_the_predictor_alone(at_once, corpus, windows):
    acting = objective_of(corpus, *LABS)
    batch, plain = (objective.collate(windows, ROW) for objective in (acting, at_once))
    mine, other = batch.own["futures"], plain.own["futures"]
    assert torch.equal(mine.futures.inputs.ids, other.futures.inputs.ids) and other.done is None  # the same futures
    labs = torch.tensor([name.startswith("LAB") for name in corpus.tokenizer.vocabulary.tokens])
    assert labs[mine.done.tokens].all() and labs[mine.futures.inputs.ids].any()
    assert 0.3 < mine.done.given.float().mean() < 0.7 and len(mine.done.given) == len(mine.state)
    _, read = acting.read(batch.inputs, batch.idle)
    term = futures_in(acting)
    passive, _ = term.foresee(mine, read)
    unknown, _ = term.foresee(mine, read, torch.zeros_like(mine.done.given))
    knowing, _ = term.foresee(mine, read, mine.done.given)
    assert torch.equal(passive, unknown)
    differs = (passive != knowing).any(1)
    assert torch.equal(differs, mine.done.given)
    moved = replace(mine, done=replace(mine.done, tokens=torch.full_like(mine.done.tokens, 5)))
    assert torch.equal(term.means(moved.futures), term.means(mine.futures))
    assert not torch.equal(term.foresee(moved, read, mine.done.given)[0], knowing)  # negative control
    acting(batch).total.backward()
    assert term.actions.projection.weight.grad.abs().sum() > 0
    details = acting.validate(corpus, np.arange(40)).details["futures"]
    assert details["skill_given_actions"] != details["skill"] and "rollouts" not in details


def test_rollouts_are_trained_where_a_stage_weighs_them(corpus, windows):
    stages = "stages=[{share=0.5, futures=1}, {share=0.5, rollouts=2, only_heads=true, synced=true}]"
    objective = objective_of(corpus, stages, "horizons=[0, 5, 10]", LABS[1])
    term, batch = futures_in(objective), objective.collate(windows, ROW)
    chains = batch.own["futures"].chains
    assert chains.window.unique().tolist() == [1] and len(chains.done) == 2 and len(chains.state) > 5
    assert float(objective(batch).parts["rollouts"]) == 0
    objective.schedule.number.fill_(1)
    loss = objective(batch)
    _, read = objective.read(batch.inputs, batch.idle)
    windows_ahead = term.roll(chains, read, 2, [done.given for done in chains.done])
    y = torch.nn.functional.layer_norm(term.means(chains.futures), (32,))
    expected = torch.nn.functional.smooth_l1_loss(windows_ahead[chains.chain, 1], y)
    assert float(loss.total.detach()) == pytest.approx(2 * float(expected.detach()) * batch.weight, rel=1e-5)
    loss.total.backward()
    assert all(weight.grad is None for weight in objective.decoder.parameters()) and objective.states.table.grad is None
    assert term.predictor.up.weight.grad.abs().sum() > 0
    shuffled = objective_of(corpus, stages, "horizons=[0, 5, 10]", "shuffled=true").collate(windows, ROW)
    shuffled = shuffled.own["futures"].chains
    assert torch.equal(shuffled.futures.inputs.ids, chains.futures.inputs.ids)
    assert not torch.equal(shuffled.chain, chains.chain)
    assert objective_of(corpus).collate(windows, ROW).own["futures"].chains is None


def test_the_report_at_the_end_tells_how_far_it_sees(corpus, windows, world_corpus):
    objective = objective_of(corpus, "stages='at_once'", "horizons=[0, 5, 10]", windows=windows)
    found = objective.validate(Corpus.load(world_corpus, "tuning")).details["futures"]["rollouts"]
    assert found["windows"] == [1, 2, 3] and found["days"] == 5 and min(found["pairs"]) > 5
    assert all(error > 0 for name in ("error", "persistence", "mean", "ridge") for error in found[name])
    assert "given_actions" not in found


def test_records_too_short_for_every_horizon_are_refused_before_training(corpus, windows):
    with pytest.raises(InputError, match=r"no training patient has an event 90000 to 99000 days after.*give shorter"):
        objective_of(corpus, "horizons=[90000, 99000]", windows=windows)
    objective_of(corpus, "horizons=[90000, 99000]")  # nobody trains
    objective_of(corpus, "horizons=[0, 99000, 99001]", "ahead=0")


def test_rows_of_a_single_state_are_judged_too(corpus):
    objective = objective_of(corpus, "stages='at_once'", "anchors=1", "horizons=[0, 20]", "share=4.0")
    found = [objective.validate(corpus, np.array([patient])) for patient in range(8)]
    assert 1 in {each.details["futures"]["pairs"] for each in found if "futures" in each.details}
