"""The data that comes with the package."""

from sequela.record.bundled import nafld


def test_the_cohort_is_inside_the_package():
    assert (nafld() / "metadata/dataset.json").is_file()
    assert nafld().parent.parent.name == "record"
