from sequela.task.baselines.rivals import FOREST, STRONG, TOKENS
from sequela.task.baselines.words import BASELINES
from sequela.task.kinds import KINDS


def test_every_baseline_is_explained_to_readers():
    names = {name for kind in KINDS.values() for name in kind.baselines} | {FOREST, STRONG, TOKENS}
    assert set(BASELINES) == names
