import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.training import loop
from sequela.training.loop import Host, train
from sequela.training.objectives.objective import OBJECTIVES
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted
from tests.training.soon import Soon

QUICK = TrainSettings(
    depth=1, context=256, batch_tokens=1024, epochs=2, patience=0, learning_rate=6e-3, matrix_rate=6e-3
)
SHORT = replace(QUICK, epochs=0.5)


def run(corpus, out, settings=QUICK, *, resume=True, **host):
    out.mkdir(exist_ok=True)
    return train(corpus, out, settings, resume=resume, host=Host(**host))


def weights(out):
    return checkpoint.load(out).embedding.weight


def test_training_learns_and_the_folder_loads(world_corpus, tmp_path):
    about = run(world_corpus, tmp_path / "model")
    assert about["tuning"]["bits_per_token"] < 0.7 * about["curve_bits_per_token"][0]
    assert about["train_bits_per_token"] == pytest.approx(about["tuning"]["bits_per_token"], rel=0.3)
    model = checkpoint.load(tmp_path / "model")
    assert len(EhrTokenizer.load(tmp_path / "model").vocabulary) == model.config.vocab_size
    assert json.loads((tmp_path / "model" / "train.json").read_text()) == about
    assert about["parameters"] == model.config.parameters
    assert not (tmp_path / "model" / "checkpoints").exists()


def test_the_grammar_is_handed_on_and_fitted_where_the_corpus_has_none(world_corpus, tmp_path):
    shutil.copytree(world_corpus, tmp_path / "older")
    (tmp_path / "older" / "grammar.json").unlink()
    for number, corpus in enumerate((world_corpus, tmp_path / "older")):
        run(corpus, tmp_path / f"model-{number}", SHORT)
        handed_on = (tmp_path / f"model-{number}" / "grammar.json").read_bytes()
        assert handed_on == (world_corpus / "grammar.json").read_bytes()


def test_the_losses_of_each_kind_are_told_on_the_way_and_at_the_end(world_corpus, tmp_path):
    about = run(world_corpus, tmp_path / "model", replace(QUICK, checks=4))
    tokens = [check["tokens"] / about["tokens"] for check in about["checks"]]
    assert tokens == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.05)
    assert {"death", "lab", "time", "value"} < set(about["tuning"]["kinds"])
    assert about["tuning"]["kinds"]["lab"]["bits_per_event"] > 0
    patients = Corpus.load(world_corpus, "tuning")
    assert about["checks"][0]["kinds"]["lab"]["events"] < about["tuning"]["kinds"]["lab"]["events"]
    assert about["tuning"]["kinds"]["lab"]["events"] < patients.events


@pytest.mark.parametrize("checks", [0, 1])
def test_there_are_as_many_checks_as_asked_for(world_corpus, tmp_path, checks):
    assert len(run(world_corpus, tmp_path / "model", replace(SHORT, checks=checks))["checks"]) == checks


def test_two_runs_of_one_seed_are_equal_bit_for_bit(world_corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(world_corpus, tmp_path / name, replace(SHORT, seed=seed))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("epochs", [0.5, 1.0, 1.5])
def test_a_run_sees_as_many_tokens_as_asked_for(world_corpus, tmp_path, epochs):
    about = run(world_corpus, tmp_path / "model", replace(QUICK, epochs=epochs))
    one = int(Corpus.load(world_corpus, "train").tokens.lengths.sum())
    assert epochs * one <= about["tokens"] < epochs * one + 1024
    same = run(world_corpus, tmp_path / "same", replace(QUICK, epochs=None, tokens=epochs * one))
    assert same["tokens"] == about["tokens"]


def interrupted(corpus, out, steps, settings=SHORT):
    soon = Soon(steps)
    with pytest.raises(Interrupted, match="run the same command again"):
        run(corpus, out, settings, shutdown=soon, progress=soon)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(world_corpus, tmp_path):
    whole = run(world_corpus, tmp_path / "whole", SHORT)
    for steps in (3, 4):
        interrupted(world_corpus, tmp_path / "model", steps)
    said = []
    about = run(world_corpus, tmp_path / "model", SHORT, say=said.append)
    assert "resumes after" in said[0]
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "model"))
    for name in ("curve_tokens", "curve_bits_per_token", "checks", "tuning", "steps", "tokens", "flops"):
        assert about[name] == whole[name]
    assert about["tokens_per_second"] == pytest.approx(about["tokens"] / about["seconds"])
    peak = about["peak_flops_per_second"]
    share = about["flops"] / about["seconds"] / peak
    assert about["MFU"] == (pytest.approx(share) if share <= 1 else None)


STAGES = {
    "world_model": (
        "stages=[{share=0.2, tokens=1}, {share=0.1, tokens=1, futures=1, only_heads=true, synced=true}, "
        "{share=0.4, tokens=0.2, futures=1, waits=0.5, masked=0.1}, "
        "{share=0.3, futures=1, rollouts=1, only_heads=true, synced=true}]",
        "actions=['lab']",
        "horizons=[0, 5, 20]",
    )
}


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "next_token"])
def test_so_does_one_of_every_objective_whatever_the_stage(world_corpus, tmp_path, objective):
    settings = replace(SHORT, objective=objective, options=STAGES.get(objective, ()), width=32, checks=3)
    whole = run(world_corpus, tmp_path / "whole", settings)
    assert whole["steps"] == 10
    for steps in (2, 3, 1):  # of ten: before, around, and in the stages that learn to foresee
        interrupted(world_corpus, tmp_path / "model", steps, settings)
    about = run(world_corpus, tmp_path / "model", settings)
    files = sorted(path.name for path in (tmp_path / "whole").glob("*.safetensors"))
    assert files[0] == "model.safetensors" and len(files) == 1 + (objective != "smb_faithful")
    for name in files:
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for name in ("curve_bits_per_token", "checks", "tuning", "steps", "flops"):
        assert about[name] == whole[name]
    if objective == "world_model":
        assert min(about["tuning"]["futures"]["rollouts"]["pairs"]) > 0
    plain = run(world_corpus, tmp_path / "plain", replace(settings, objective="next_token", options=()))
    assert plain["tuning"]["bits_per_token"] != whole["tuning"]["bits_per_token"]  # negative control


def test_a_run_goes_on_only_from_its_own_checkpoint(world_corpus, tmp_path):
    """The control: other settings, or not resuming, start over."""
    interrupted(world_corpus, tmp_path / "model", 3)
    shutil.copytree(tmp_path / "model", tmp_path / "again")
    for name, more in (("model", {"settings": replace(SHORT, seed=1)}), ("again", {"resume": False})):
        said = []
        run(world_corpus, tmp_path / name, **({"settings": SHORT} | more), say=said.append)
        assert not any("resumes after" in line for line in said)


def test_a_run_does_not_go_on_in_other_numbers(world_corpus, tmp_path, monkeypatch):
    interrupted(world_corpus, tmp_path / "model", 3)
    monkeypatch.setattr("sequela.model.precision.choose", lambda *_: "bf16")
    with pytest.raises(InputError, match="begun in fp32, but this processor would go on in bf16"):
        run(world_corpus, tmp_path / "model", SHORT)


def test_a_run_that_is_complete_is_not_trained_again(world_corpus, tmp_path):
    """Killed after its last file was written, before anybody took the folder."""
    about = run(world_corpus, tmp_path / "model", SHORT)
    (tmp_path / "model" / "checkpoints").mkdir()
    steps = []
    again = run(world_corpus, tmp_path / "model", SHORT, progress=lambda *_, **__: steps.append(1))
    assert again == about and not steps and not (tmp_path / "model" / "checkpoints").exists()
    other = run(world_corpus, tmp_path / "model", replace(SHORT, seed=1))
    assert other["settings"]["seed"] == 1 and other != about


@pytest.mark.parametrize("log", ["tensorboard", "mlflow"])
def test_metrics_are_written_beside_the_folder(world_corpus, tmp_path, log):
    pytest.importorskip(log)
    run(world_corpus, tmp_path / "model", replace(SHORT, log=log))
    assert any((tmp_path / "model-log").iterdir())


def test_what_was_not_given_is_said(world_corpus, tmp_path):
    said = []
    run(world_corpus, tmp_path / "model", SHORT, say=said.append)
    assert any(line.split()[:2] == ["width", "64"] for line in said)
    assert said[-1].split() == ["precision", "fp32"]


def test_a_learning_rate_that_explodes_stops_the_run_and_keeps_the_batch(world_corpus, tmp_path):
    with pytest.raises(InputError, match=r"became.*model-stopped.*learning_rate") as told:
        run(world_corpus, tmp_path / "model", replace(QUICK, learning_rate=1e30))
    assert "ignore_spikes" not in str(told.value)  # what is no number cannot pass
    kept = tmp_path / "model-stopped"
    assert json.loads((kept / "step.json").read_text())["settings"]["learning_rate"] == 1e30
    tokens = np.load(kept / "tokens.npy", allow_pickle=False)
    assert 0 < len(tokens) <= 1024


def poisoned(corpus, out, patient):
    """A copy of a corpus in which the tokens of one training patient are shuffled noise, its hash set right."""
    from sequela.tokens import corpus as corpora

    shutil.copytree(corpus, out)
    about = json.loads((out / "corpus.json").read_text())
    (shard,) = about["splits"]["train"]["shards"]
    names = {path.name.split(".")[1]: path for path in (out / "train").glob(f"{shard['shard']}.*.npy")}
    held = {kind: np.load(names[kind]) for kind in ("patients", "offsets", "tokens", "rest")}
    begin, end = held["offsets"][patient : patient + 2]
    held["tokens"][begin + 1 : end] = np.random.default_rng(0).integers(
        2, held["tokens"].max(), end - begin - 1
    )
    np.save(names["tokens"], held["tokens"])
    shard["sha256"] = corpora._hash(held)
    (out / "corpus.json").write_text(json.dumps(about))
    return int(held["patients"][patient])


SMALL_STEPS = replace(QUICK, batch_tokens=256, row_tokens=256, epochs=1, checks=0)


def test_a_poisoned_batch_stops_the_run_and_is_kept(world_corpus, tmp_path):
    """Steps of a few patients: at its turn the loss jumps, and the batch that is kept is that patient's."""
    plan = RunPlan.of(world_corpus, SMALL_STEPS)
    window = list(plan.batches())[70].rows[0][0]
    patient = poisoned(world_corpus, tmp_path / "corpus", int(plan.windows.patient[window]))
    with pytest.raises(InputError, match=r"At step 71 the loss jumped to.*ignore_spikes"):
        run(tmp_path / "corpus", tmp_path / "model", replace(SMALL_STEPS, checkpoint_minutes=0.0))
    kept = tmp_path / "model-stopped"
    patients = np.load(kept / "patients.npy", allow_pickle=False)
    assert patient in patients.tolist()
    assert len(np.load(kept / "offsets.npy", allow_pickle=False)) == len(patients) + 1
    said = []
    let_pass = replace(SMALL_STEPS, ignore_spikes=True)
    assert run(tmp_path / "corpus", tmp_path / "model", let_pass, say=said.append)["tokens"] > 0
    assert "resumes after" in said[0]


def test_the_noise_of_small_steps_stops_no_run(world_corpus, tmp_path):
    """The control: the same without poison."""
    run(world_corpus, tmp_path / "model", SMALL_STEPS)
    assert not (tmp_path / "model-stopped").exists()


def test_a_context_shorter_than_a_patient_windows_it(world_corpus, tmp_path):
    assert run(world_corpus, tmp_path / "model", replace(SHORT, context=32))["steps"] > 0


def test_no_share_of_the_peak_above_one_is_told(world_corpus, monkeypatch):
    """Where others took the processor while the peak was measured, it is measured again, once."""
    measured, totals = iter([1.0, 1e30, 2.0, 3.0]), iter([(0, 0, 0.0), (10, 1000, 2.0)])
    monkeypatch.setattr(loop, "measured_peak", lambda *_: next(measured))
    settings = TrainSettings(depth=1, context=64, batch_tokens=64, epochs=0.01)
    run = Run(RunPlan.of(world_corpus, settings), ProcessGroup())
    monkeypatch.setattr(loop, "_totals", lambda run: next(totals))
    assert loop._Reporter(run, None, None).speed_of_all() == {"tokens_per_second": 5.0, "MFU": 500 / 1e30}
    totals = iter([(0, 0, 0.0), (10, 1000, 2.0), (10, 1000, 2.0)])
    slow = loop._Reporter(run, None, None)
    assert slow.speed_of_all() == slow.speed_of_all() == {"tokens_per_second": 5.0} and slow.peak == 3.0
