"""Terms in combination: their weights, their options, and what trains in which stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.model.states import StateTokens
from sequela.tokens.corpus import Corpus
from sequela.training.data import token_counts, windows_of
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Setup, named
from sequela.training.objectives.world_model import WorldModel, known_terms
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings

ROW = np.arange(8)
ALL = "stages=[{share=1.0, tokens=0.5, futures=2, waits=0.25, masked=3}]"


@pytest.fixture(scope="module")
def corpus(world_corpus):
    return Corpus.load(world_corpus, "train")


def objective_of(corpus, *options, objective="world_model", patience=0):
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64,
        layers=1, context=64,
    )  # fmt: skip
    settings = TrainSettings(objective=objective, options=options, row_tokens=512, patience=patience)
    setup = Setup(settings=settings, tokenizer=corpus.tokenizer, rest=corpus.rest, counts=token_counts(corpus))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return named(objective)(Decoder(config).initialize(0), setup)


def test_each_term_counts_its_weight(corpus):
    objective, windows = objective_of(corpus, ALL), windows_of(corpus, 64)
    assert sorted(objective.terms) == ["futures", "masked", "waits"]
    loss = objective(objective.collate(windows, ROW))
    parts = {name: float(value) for name, value in loss.parts.items()}
    expected = 2 * (parts["futures"] + parts["empty"]) + 0.25 * parts["waits"] + 3 * parts["masked"]
    assert float(loss.total.detach()) == pytest.approx(0.5 * parts["bits_per_token"] + expected, rel=1e-5)
    plain = NextToken(objective.decoder, objective.setup)
    alone = plain(plain.collate(windows, ROW)).total
    assert parts["bits_per_token"] == pytest.approx(float(alone.detach()), rel=1e-5)
    loss.total.backward()
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in trained)
    assert {id(w) for group in objective.groups() for w in group.weights} == {id(w) for w in trained}


def test_what_a_term_draws_does_not_depend_on_the_others(corpus):
    windows, stages = windows_of(corpus, 64), "stages=[{share=1.0, tokens=1, futures=1}]"
    both, one = (objective_of(corpus, which).collate(windows, ROW) for which in (ALL, stages))
    ids, same = (batch.own["futures"].futures.inputs.ids for batch in (both, one))
    assert torch.equal(ids, same) and set(one.own) == {"futures"}
    masked = objective_of(corpus, "stages=[{share=1.0, masked=1}]")
    alone = masked.collate(windows, ROW)
    assert masked.states is None and alone.idle is None and not len(alone.inputs.aside)
    assert torch.equal(alone.own["masked"].masked, both.own["masked"].masked)
    assert torch.equal(alone.inputs.ids, both.own["masked"].inputs.ids)


SETTLE = "stages=[{share=0.5, tokens=1, futures=1, waits=1, masked=1}, {share=0.5, HEADS only_heads=true, synced=true}]"
HEADS = "futures=1, waits=1, masked=1,"


def stepped(world_corpus, heads):
    """The weights when the second stage begins, and after three steps of it."""
    settings = TrainSettings(
        depth=1, width=32, context=64, batch_tokens=256, tokens=3000, objective="world_model", checks=0,
        options=(SETTLE.replace("HEADS", heads),),
    )  # fmt: skip
    run = Run(RunPlan.of(world_corpus, settings), ProcessGroup())
    begin, left = None, 3
    for step, passes in run.feed():
        run.take(step, passes)
        left -= begin is not None
        if begin is None and int(run.objective.schedule.number) == 1:
            begin = {name: x.clone() for name, x in run.objective.state_dict().items()}
        if not left:
            break
    return begin, run.objective.state_dict()


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_stage_of_heads_alone_leaves_the_decoder_as_it_is_to_the_bit(world_corpus):
    """Momentum of the stage before included; and the target is a copy of it."""
    before, after = stepped(world_corpus, HEADS)
    changed = moved(before, after)
    assert changed and all(name.startswith("terms.") and ".target." not in name for name in changed)
    for name in ("futures.predictor.up.weight", "waits.rates.pieces.weight", "masked.predictor.0.weight"):
        assert f"terms.{name}" in changed
    assert "terms.masked.mask" not in changed  # it enters the decoder
    for name in before:
        if name.startswith("terms.futures.target."):
            assert torch.equal(after[name], after[name.replace("terms.futures.target.", "next_token.")])


def test_next_tokens_beside_heads_do_move_it(world_corpus):
    """The negative control."""
    changed = moved(*stepped(world_corpus, "tokens=0.1, " + HEADS))
    assert "next_token.decoder.blocks.0.qkv.weight" in changed


def test_where_nothing_trains_state_tokens_they_ask_what_time_asks(corpus):
    """A decoder that stays as it is would not know what others ask."""
    heads = "stages=[{share=0.5, waits=1, only_heads=true}, {share=0.5, waits=2, only_heads=true}]"
    frozen = objective_of(corpus, heads)
    embedding, tokenizer = frozen.decoder.embedding.weight.detach(), corpus.tokenizer
    counts = torch.from_numpy(token_counts(corpus) * (tokenizer.minutes_V > 0)).float()
    torch.testing.assert_close(frozen.states.table[0].detach(), counts / counts.sum() @ embedding)
    curriculum = objective_of(corpus, "stages='curriculum'", "terms=['waits']")
    drawn = StateTokens(32).initialize(torch.Generator().manual_seed(0)).table
    assert torch.equal(curriculum.states.table, drawn) and torch.equal(objective_of(corpus, ALL).states.table, drawn)
    with torch.device("meta"):  # as where sharded weights are put together
        assert objective_of(corpus, heads).states.table.is_meta


def test_a_row_with_nothing_to_foresee_passes(corpus):
    """One moment alone, in a stage without next tokens."""
    objective = objective_of(corpus, "stages=[{share=1.0, futures=1, waits=1, masked=1, only_heads=true}]")
    windows = windows_of(corpus, 64)
    short = replace(windows, stop=np.minimum(windows.stop, windows.start + 1))
    batch = objective.collate(short, ROW[:1])
    batch = replace(batch, own=batch.own | {"futures": replace(batch.own["futures"], state=torch.zeros(0, dtype=int))})
    loss = objective(batch)
    assert float(loss.total.detach()) >= 0
    loss.total.backward()
    assert objective.decoder.embedding.weight.grad is None


def test_options_go_to_the_term_that_has_them(corpus):
    objective = objective_of(corpus, ALL, "horizons=[0, 10]", "waits.rate=0.5", "waits.events=9", "masked={decay=0.5}")
    terms = objective.terms
    assert terms["futures"].options.horizons == (0, 10) and terms["waits"].options.events == 9
    rates = [terms[name].options.rate for name in ("futures", "waits", "masked")]
    assert rates == [1, 0.5, 1] and terms["masked"].options.decay == 0.5
    named_stage = objective_of(corpus, "stages='at_once'", "terms=['waits']")
    assert list(named_stage.terms) == ["waits"] and named("world_model") is WorldModel
    assert {term.name for term in known_terms()} == {"futures", "waits", "masked"}


@pytest.mark.parametrize(
    ("objective", "options", "why"),
    [
        ("world_model", ["rate=2", ALL], "waits and masked and futures both have|have `rate`: say whose it is"),
        ("world_model", [], "give `terms`, some of waits, masked, futures, or write `stages` as tables"),
        ("world_model", ["terms=['wait']"], r"`terms` has no 'wait' \(did you mean 'waits'\?\)"),
        ("world_model", [ALL, "horizon=3"], "there is no setting 'horizon'.*did you mean 'horizons'"),
        ("world_model", ["stages=[{share=1.0, tokens=1}]"], "no stage gives waits or masked or futures a weight"),
        ("state_jepa", ["stages=[{share=1.0, waits=1}]"], "stage 1 of `stages` has no 'waits'"),
        ("state_jepa", ["stages=[{share=1.0, tokens=1}]"], "no stage gives futures a weight above 0: do so, or take"),
        ("time_to_event", ["edges=[3.0]"], "options of time_to_event: `edges` must rise from 0"),
        ("time_to_event", ["anchors=0"], "`anchors` must be 1 or more"),
        ("time_to_event", ["events=true"], "`events` is True: give a whole number"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(corpus, objective, options, why):
    with pytest.raises(InputError, match=why):
        objective_of(corpus, *options, objective=objective)


def test_a_run_that_ends_by_next_tokens_has_one_stage(corpus):
    with pytest.raises(InputError, match="set `patience` to 0, or have one stage"):
        objective_of(corpus, objective="state_jepa", patience=3)
    objective_of(corpus, "stages='at_once'", objective="state_jepa", patience=3)
