import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY
from sequela.task.catalog import load_task
from tests.task.test_catalog import YAML


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: binary", "kind: ternary", "kind is 'ternary'"),
        ("outcome: [MEDS_DEATH]", "outcome: MEDS_DEATH", "give a list of codes"),
        ("outcome: [MEDS_DEATH]", "outcome: []", "outcome is empty"),
        ("outcome: [MEDS_DEATH]", "outcome: [FOLLOW_UP//END]", "not an event"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nends: [MEDS_DEATH]", "an outcome and an end"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 5", "horizon is '5'"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 5 aeons", "such as '5 years'"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: -5 days", "such as '5 years'"),
        ("kind: binary", "kind: count", "kind count needs a horizon"),
        ("kind: binary", "kind: value", "kind value needs a horizon"),
        ("kind: binary", "kind: count\nhorizon: 1 year\nat_least: 2", "kinds binary and time; leave it out"),
        ("kind: binary", "kind: binary\nat_least: 0", "'at_least' is 0"),
        ("kind: binary", "kind: binary\nat_least: 1.5", "'at_least' is 1.5"),
        ("kind: binary", "kind: binary\nabove: high", "'above' is 'high'"),
        ("kind: binary", "kind: binary\nbelow: .nan", "'below' is .nan"),
        ("kind: binary", "kind: binary\nabove: 7\nbelow: 7", "no number is above 7.0 and below 7.0"),
        ("offset: 1 day", "offset: one day", "offset is 'one day'"),
        ("after:", "before:", "'before' is not a field of at; write at as"),
        ("offset:", "ofset:", "'ofset' is not a field of at (did you mean 'offset'?)"),
        ('at: {after: "ENTRY", offset: 1 day}', "at: {after: ENTRY}", "write at as"),
        ('at: {after: "ENTRY", offset: 1 day}', "at: ENTRY", "write at as"),
        ("title: Mine", "title: Mine\nname: other", ", line 4: 'name' stands in line 2 already"),
        ("offset: 1 day", "offset: 1 day, after: DISCHARGE", ", line 6: 'after' stands in line 6 already"),
        (
            "title: Mine",
            "title: Mine\nExclude: [X]",
            ", line 4: 'Exclude' is not a field of a task (did you mean 'ex",
        ),
        (
            "title: Mine",
            "title: Mine\nexclud: [X]",
            "'exclud' is not a field of a task (did you mean 'exclude'?)",
        ),
        ("title: Mine", "title: Mine\non: [X]", "'on' is not a field of a task"),
        ("title: Mine", "title: Mine\n[1, 2]: [X]", "'[...]' is not a field of a task"),
        ("title: Mine", "title: Mine\n<<: {exclude: [X]}", "'<<' is not a field of a task"),
        ("[MEDS_DEATH]", "[MEDS_DEATH, ]\nexclude: [~]", "'exclude' is [empty (null)]; give a list of codes"),
        ("[MEDS_DEATH]", "\n  - MEDS_DEATH\n  -", "'outcome' is ['MEDS_DEATH', empty"),
        ("[MEDS_DEATH]", "[[MEDS_DEATH]]", "give a list of codes"),
        ("[MEDS_DEATH]", "{MEDS_DEATH: 1}", "give a list of codes"),
        ("[MEDS_DEATH]", "&a [*a]", "give a list of codes"),
        ("[MEDS_DEATH]", "['*']", "give a list of codes"),
        ("[MEDS_DEATH]", "!!set {MEDS_DEATH}", "give a list of codes"),
        ("kind: binary", "kind: !!python/name:os.system binary", "'kind' is "),
        ("title: Mine", "title: Mine\n\texclude: [X]", "indent with spaces, not with tabs"),
        ("title: Mine", "title: Mine\n---", "several documents"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 0 days", "give a time above 0"),
        (
            "outcome: [MEDS_DEATH]",
            "outcome: [MEDS_DEATH]\nhorizon: 0.00000000001 minutes",
            "give a time above 0",
        ),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 400000 years", "longer than 1,000 years"),
        (
            "outcome: [MEDS_DEATH]",
            f"outcome: [MEDS_DEATH]\nhorizon: {'9' * 400} days",
            "longer than 1,000 years",
        ),
        (
            "outcome: [MEDS_DEATH]",
            "outcome: [MEDS_DEATH]\nhorizon: 5",
            "horizon is '5': write a number and a unit",
        ),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: [5 years]", "'horizon' is ['5 years']"),
        (
            "outcome: [MEDS_DEATH]",
            "outcome: [MEDS_DEATH]\nhorizon: '\u0663 days'",
            "write a number and a unit",
        ),
        ("offset: 1 day", "offset: 400000 years", "longer than 1,000 years"),
        ("offset: 1 day", "offset: -1 day", "offset is '-1 day'"),
        ("kind: binary", "kind: binary\nat_least: 1e1", "'at_least' is '1e1'"),
        ("kind: binary", "kind: binary\nat_least: 010", "'at_least' is 010"),
        ("kind: binary", "kind: binary\nat_least: true", "'at_least' is true"),
        ("kind: binary", "kind: binary\nat_least: '2'", "'at_least' is '2'"),
        ("kind: binary", f"kind: binary\nat_least: 1{'0' * 30}", "up to 1,000,000"),
        ("kind: binary", "kind: binary\nabove: 1e300", "'above' is '1e300'"),
        ("kind: binary", "kind: binary\nabove: 6,5", "'above' is '6,5'"),
        ("kind: binary", "kind: binary\nabove: 12:30", "'above' is 12:30"),
        ("kind: binary", "kind: binary\nabove: [7]", "'above' is [7]"),
        ("kind: binary", "kind: binary\nabove: 7\nbelow: 7.00000001", "no number is above 7.0 and below"),
        ("name: mine", f"name: {'m' * 300}", "100 in all at most"),
        ("offset: 1 day", "offset: 1 day, occurrence: last", "occurrence is 'last'; it is one of first, all"),
        ("title: Mine", "titel: Mine", "'titel' is not a field of a task (did you mean 'title'?)"),
        ("title: Mine", "", "'title' is not there"),
        ("name: mine", "name: ../mine", "must be usable as a folder name"),
        ("name: mine", "name: [", "is not YAML"),
    ],
)
def test_a_bad_task_file_says_what_to_mend(tmp_path, old, new, words):
    path = tmp_path / "mine.yaml"
    assert old in YAML
    path.write_text(YAML.replace(old, new))
    with pytest.raises(InputError) as error:
        load_task(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_codes_are_read_as_they_are_written(tmp_path):
    """YAML alone makes of these false, true, 250, 250.0, 10, a date, 750, 1000.0 and infinity."""
    codes = [
        "NO",
        "on",
        "250",
        "250.00",
        "012",
        "2020-01-01",
        "12:30",
        "1.e3",
        ".inf",
        "=",
        "Y",
        "A: B",
        "0x1F",
    ]
    path = tmp_path / "mine.yaml"
    plain = ", ".join(code if ": " not in code else f"'{code}'" for code in codes)
    path.write_text(YAML.replace("[MEDS_DEATH]", f"[{plain}]").replace("title: Mine", "title: 2020"))
    task = load_task(path)
    assert task.outcome == tuple(codes)
    assert task.title == "2020"
    path.write_text(YAML.replace('"ENTRY"', "0420"))
    assert load_task(path).cohort.after == "0420"


def test_what_yaml_allows_besides(tmp_path):
    """Quotes, blocks, comments, anchors, CRLF, a byte order mark, one explicit document, and fields that are null."""
    path = tmp_path / "mine.yaml"
    text = YAML.replace("[MEDS_DEATH]", "&these [MEDS_DEATH]\nhorizon: ~\nabove: null")
    path.write_text(text.replace("MEDS_DEATH]", "'ICD10CM//I21*', \"X//Y\"]") + "exclude: *these  # again\n")
    task = load_task(path)
    assert task.cohort.exclude == task.outcome == ("ICD10CM//I21*", "X//Y")
    assert (task.horizon, task.event.above) == (None, None)
    plain = load_task(_written(path, YAML))
    assert load_task(_written(path, "\ufeff---" + YAML.replace("\n", "\r\n") + "...\r\n")) == plain
    assert load_task(_written(path, YAML.replace("[MEDS_DEATH]", "\n- MEDS_DEATH"))) == plain


def _written(path, text: str):
    path.write_bytes(text.encode())
    return path


def test_a_horizon_may_be_a_fraction_and_an_offset_may_be_nothing(tmp_path):
    path = _written(tmp_path / "mine.yaml", YAML.replace("1 day", "0 days") + "horizon: 0.5 days\n")
    assert (load_task(path).horizon, load_task(path).cohort.offset) == (DAY // 2, 0)
    assert load_task(_written(path, YAML + "horizon: 1000 years\n")).horizon == 365_250 * DAY


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no fields"),
        (b"# nothing\n", "holds no fields"),
        (b"---\n", "holds a list or a text"),
        (b"- name: mine\n", "holds a list or a text"),
        (b"mine", "holds a list or a text"),
        ("name: m\u00fcller".encode("latin-1"), "save it in UTF-8"),
        ("name: mine".encode("utf-16"), "save it in UTF-8"),
        (b"name: \0", "is not YAML"),
        (b"name: *nobody", "is not YAML"),
        (b"[" * 5000, "nested too deep"),
    ],
)
def test_what_is_no_task_file(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_task(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_the_fields_of_a_condition_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML + "at_least: 2\nabove: 6.5\nbelow: 14\n")
    task = load_task(path)
    assert (task.event.at_least, task.event.above, task.event.below) == (2, 6.5, 14.0)
    path.write_text(YAML)
    assert (load_task(path).event.at_least, load_task(path).event.above) == (1, None)


def test_a_task_may_ask_at_every_occurrence(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.replace("offset: 1 day", "offset: 1 day, occurrence: all"))
    assert load_task(path).cohort.occurrence == "all"
    path.write_text(YAML)
    assert load_task(path).cohort.occurrence == "first"
