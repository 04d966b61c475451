"""Times and counts of all stages are found along the manifests."""

from pathlib import Path

from sequela.serve.folder.lineage import counted, in_words, stage_costs
from sequela.serve.folder.work import make_folder


def test_stages_are_found_first_stage_first(tmp_path: Path) -> None:
    make_folder(tmp_path / "meds", "ingest", {}, {}, lambda work: {"events": 10})
    splits = {"splits": {"train": {"tokens": 7, "sha256": "ab"}, "tuning": {"tokens": 3}}, "curve": [1.0]}
    make_folder(tmp_path / "corpus", "tokenize", {}, {"meds": tmp_path / "meds"}, lambda work: splits)
    inputs = {"corpus": tmp_path / "corpus", "meds": tmp_path / "meds"}
    last = make_folder(
        tmp_path / "model", "train", {}, inputs, lambda work: {"flops": 1e9, "seconds": 99.0, "ok": True}
    )
    found = stage_costs([tmp_path / "model"])
    assert list(found) == ["ingest", "tokenize", "train"]
    assert found["tokenize"]["tokens"] == 10
    assert found["train"] == {"seconds": last["seconds"], "peak_rss_mb": last["peak_rss_mb"], "flops": 1e9}
    assert in_words(last) == ""


def test_what_ran_more_than_once_is_added_up(tmp_path: Path) -> None:
    make_folder(tmp_path / "corpus", "tokenize", {}, {}, lambda work: {"tokens": 3})
    for name, tokens in (("model", 10), ("model-2", 20), ("model-3", 30)):
        inputs = {"corpus": tmp_path / "corpus"}
        make_folder(tmp_path / name, "train", {"seed": tokens}, inputs, lambda work, tokens=tokens: {"tokens": tokens})
    folders = [tmp_path / name for name in ("model", "model-2", "model-3", "model")]
    found = stage_costs(folders)
    assert (found["train"]["tokens"], found["train"]["runs"]) == (60, 3)
    assert found["tokenize"]["tokens"] == 3 and "runs" not in found["tokenize"]
    assert found["train"]["peak_rss_mb"] < 3 * found["tokenize"]["peak_rss_mb"]


def test_foreign_folders_end_the_way(tmp_path: Path) -> None:
    assert stage_costs([tmp_path]) == {}


def test_counts_in_words() -> None:
    facts = {"seconds": 1.0, "peak_rss_mb": 5, "result": {"tokens": 1234, "events": 5}}
    assert counted(facts)["tokens"] == 1234
    assert in_words(facts) == "5 events, 1,234 tokens"
    facts["result"] = {"events": 5, "quarantined": 0}
    assert in_words(facts) == "5 events"
    facts["result"]["quarantined"] = 2
    assert in_words(facts) == "5 events, 2 unreadable rows set aside"
