from sequela.record.dataset import read_events
from sequela.task.baselines.rivals import STRONG, TOKENS, Cohorts, Rivals
from sequela.task.baselines.survival import installed
from sequela.task.label import labels
from sequela.tokens.tokenizer import load
from tests.task.conftest import make_task

TASK = make_task(exclude=("STROKE",))


def compared(meds, model=None, split="held_out"):
    """Answers of all baselines, and what was said."""
    said: list[str] = []
    events = read_events(meds, split)
    truth = labels(TASK, events, TASK.prediction_times(events))
    cohorts = Cohorts.read(meds, events, (), [TASK], strong=True, say=said.append)
    tokenizer = None if model is None else load(model)
    answers = Rivals.of(cohorts, meds, truth, tokenizer, 0, said.append).answers(TASK, truth)
    return {name: answer["prediction"] for name, answer in answers.items()}, said


def test_what_is_left_out_is_said(cohort_folder):
    answers, said = compared(cohort_folder)
    assert STRONG in answers and TOKENS not in answers
    assert sum("`tokens`, which needs its tokenizer, is left out" in line for line in said) == 1
    assert any("survival forest" in line for line in said) is not installed()
    answers, said = compared(cohort_folder, split="tuning")
    assert "trees" in answers and STRONG not in answers
    assert any("tuned on the split 'tuning', which was simulated" in line for line in said)
