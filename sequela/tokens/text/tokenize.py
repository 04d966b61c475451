"""A MEDS dataset to a corpus of text, in the words of a language model; nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sequela.progress import Progress, silent
from sequela.record.schema import SPLITS, TRAIN
from sequela.record.shards import Shard, patients_of, read_shard, shards_of
from sequela.record.splits import Assignment, check_patients_once, no_training_patients, split_of_folder
from sequela.tokens.corpus import split_summary, write_index, write_shard
from sequela.tokens.text.settings import TextSettings
from sequela.tokens.text.tokenizer import TextTokenizer
from sequela.tokens.tokenizer import Encoded


def tokenize(
    dataset: Path, out: Path, backbone: Path, settings: TextSettings = TextSettings(), *, progress: Progress = silent
) -> dict:
    """Write the corpus of every split of `dataset` into the folder `out`.

    Args:
        backbone: the folder of the language model.

    Returns:
        The contents of `corpus.json`.

    Raises:
        InputError: if the dataset is no valid MEDS or has no training patient, or the model no tokenizer.
    """
    tokenizer = TextTokenizer.load(backbone).written_as(settings)
    shards = shards_of(dataset)
    check_patients_once([patients_of(shard) for shard in shards], shards)
    tokenizer.save(out)
    written: dict[str, list[dict]] = {split: [] for split in SPLITS}
    with TemporaryDirectory() as work:
        Assignment.write(dataset, Path(work))
        for number, shard in enumerate(shards):
            for split, encoded in _encoded(tokenizer, shard, dataset, Path(work)):
                written[split].append(write_shard(encoded, out / split, f"{number:05d}"))
            progress(number + 1, len(shards))
    if not any(shard["patients"] for shard in written[TRAIN]):
        raise no_training_patients(dataset)
    return write_index(out, tokenizer.vocabulary, {split: split_summary(done, {}) for split, done in written.items()})


def _encoded(tokenizer: TextTokenizer, shard: Shard, dataset: Path, work: Path) -> Iterator[tuple[str, Encoded]]:
    """The rows of a shard's patients, split by split."""
    events = read_shard(shard)
    patients = events.patient[events.starts]
    assigned = Assignment.open(work)
    if assigned is None:
        split = np.full(len(patients), split_of_folder(shard, dataset))
    else:
        split = assigned.of(patients)
    of_event = np.repeat(split, np.diff(np.append(events.starts, len(events))))
    for number, name in enumerate(SPLITS):
        if (split == number).any():
            yield name, tokenizer.encode(events.take(of_event == number))
