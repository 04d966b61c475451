"""Mapping files: what they may say, and what is said of those that may not."""

import pytest

from sequela.errors import InputError
from sequela.record.ingest.leakage import LeakageRules
from sequela.record.ingest.mapping import FileTable, JsonTable, QueryTable, RowTable
from sequela.record.ingest.mapping_file import load_mapping, shipped

GOOD = """
name = "toy"
patient = "pid"

[tables.people]
files = "people.csv"
columns = { pid = "integer" }
missing = "NA"

[tables.words]
columns = ["a", "b"]
rows = [["x", 1], ["y", 2]]

[tables.both]
sql = "SELECT * FROM people"

[[events]]
table = "people"
code = "'A'"

[[events]]
table = "both"
join = "words ON true"
patient = "pid + 1"
code = "'B'"
value = "1"
range = [0, 2.5]
"""


@pytest.fixture
def written(tmp_path):
    def write(content: str):
        path = tmp_path / "toy.toml"
        path.write_text(content)
        return path

    return write


def test_a_good_mapping(written):
    mapping = load_mapping(written(GOOD))
    assert mapping.tables == {
        "people": FileTable(("people.csv",), {"pid": "integer"}, missing=("NA",)),
        "words": RowTable(("a", "b"), (("x", 1), ("y", 2))),
        "both": QueryTable("SELECT * FROM people"),
    }
    assert not mapping.tables["people"].optional_columns
    first, second = mapping.rules
    assert (first.patient, first.time, first.range) == ("pid", None, None)
    assert (second.patient, second.join, second.range) == ("pid + 1", ("words ON true",), ("0", "2.5"))


def test_formats_zones_encodings_and_names_of_databases(written):
    new = 'columns = { pid = "time %Y%m%d | %d.%m.%Y" }\ntable = "cdm.person"\nencoding = "cp1252"'
    text = 'timezone = "Asia/Tokyo"\n' + GOOD.replace('columns = { pid = "integer" }', new)
    table = load_mapping(written(text)).tables["people"]
    assert (table.table, table.encoding, table.timezone) == ("cdm.person", "cp1252", "Asia/Tokyo")
    assert (
        load_mapping(written(GOOD)).timezone == "UTC" and load_mapping(written(text)).timezone == "Asia/Tokyo"
    )


@pytest.mark.parametrize("name", ["nafld", "physionet2012", "mimic4"])
def test_the_shipped_mappings_are_good(name):
    assert name in shipped()
    assert load_mapping(name).name == name


def test_days_that_stand_for_no_time(tmp_path):
    heir = tmp_path / "heir.toml"
    heir.write_text('name = "heir"\nextends = "nafld"\nsentinels = ["9999-12-31", "1900-01-01"]')
    mapping = load_mapping(heir)
    assert mapping.sentinels == mapping.tables["people"].sentinels == ("9999-12-31", "1900-01-01")
    assert load_mapping("nafld").sentinels == ()
    heir.write_text('name = "heir"\nextends = "nafld"\nsentinels = "31.12.9999"')
    with pytest.raises(InputError, match=r"sentinels: '31.12.9999' is not a date; write one as 9999-12-31"):
        load_mapping(heir)


def test_optional_columns_are_columns(written):
    columns = 'columns = { pid = "integer" }\noptional_columns = { born = "time" }'
    table = load_mapping(written(GOOD.replace('columns = { pid = "integer" }', columns))).tables["people"]
    assert table.columns == {"pid": "integer", "born": "time"}
    assert (table.optional_columns, table.required_columns) == ({"born"}, ["pid"])


HEIR = """
name = "heir"
extends = "toy.toml"

[tables.words]
columns = ["a", "b"]
rows = [["z", 3]]

[tables.more]
files = "more.csv"
columns = { pid = "integer" }

[[events]]
table = "more"
code = "'C'"
"""


def test_an_heir_replaces_tables_and_adds_events(written, tmp_path):
    base = load_mapping(written(GOOD))
    (tmp_path / "heir.toml").write_text(HEIR)
    heir = load_mapping(tmp_path / "heir.toml")
    assert heir.name == "heir"
    assert list(heir.tables) == ["people", "words", "both", "more"]
    assert heir.tables["words"].rows == (("z", 3),)
    assert heir.tables["people"] == base.tables["people"]
    assert heir.rules[:-1] == base.rules and heir.rules[-1].table == "more"


def test_wrong_heirs(written, tmp_path):
    with pytest.raises(InputError, match="extends itself"):
        load_mapping(written('name = "toy"\nextends = "toy.toml"'))
    with pytest.raises(InputError, match="no source 'nobody'"):
        load_mapping(written('name = "toy"\nextends = "nobody"'))


def test_unknown_source():
    with pytest.raises(
        InputError, match=r"no source 'nafdl' \(did you mean 'nafld'\?\).*mimic4, .*nafld, .*physionet2012"
    ):
        load_mapping("nafdl")
    with pytest.raises(InputError, match=r"no mapping file .*other\.toml"):
        load_mapping("other.toml")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('name = "toy"', "name = ", "not valid TOML"),
        ('name = "toy"', "", "'name' is missing"),
        ('name = "toy"', "name = 3", "'name' must be a string"),
        ('patient = "pid"', 'pateint = "pid"', "unknown key 'pateint' (did you mean 'patient'?)"),
        ('patient = "pid"\n', "", "events 1: 'patient' is missing"),
        ('files = "people.csv"\n', "", "exactly one of files, rows, sql, json"),
        ('files = "people.csv"', "files = [3]", "files must be a string or a list of strings"),
        ('"integer"', '"int"', "has type 'int' (did you mean 'integer'?)"),
        ('["x", 1]', '["x"]', "row 1 must have 2 cells"),
        ('[["x", 1], ["y", 2]]', "[]", "has no rows"),
        ('table = "both"', 'table = "bot"', "no table 'bot' (did you mean 'both'?)"),
        ("code = \"'B'\"", "cod = \"'B'\"", "events 2: unknown key 'cod' (did you mean 'code'?)"),
        ("code = \"'B'\"\n", "", "events 2: 'code' is missing"),
        ('value = "1"', "value = 1", "'value' must be a string"),
        ("[0, 2.5]", "[0]", "range must be [lowest, highest]"),
        ('name = "toy"', 'name = "toy"\ntimezone = "Mars"', "timezone: 'Mars' is not a time zone"),
        ('"integer"', '"time %Q"', "has the format '%Q', which strptime does not know"),
        ('"integer"', '"time %H:%M"', "has the format '%H:%M' without a year"),
        ('{ pid = "integer" }', '{ pid = "integer", PID = "text" }', "'pid' and 'PID' differ only in case"),
        ('{ pid = "integer" }', '{ _Row = "integer" }', "'_Row' is not allowed as a name"),
        ("[tables.both]", "[tables.People]", "'people' and 'People' differ only in case"),
        ('missing = "NA"', 'encoding = "latin-0"', "encoding: 'latin-0' is unknown"),
        ('missing = "NA"', 'encoding = "hex"', "encoding: 'hex' is unknown"),
        ('missing = "NA"', 'delimiter = ";;"', "delimiter: it must be a single ASCII character"),
        ('missing = "NA"', 'quote = "ab"', "quote: it must be a single ASCII character"),
        ('missing = "NA"', 'delimiter = "|"\nquote = "|"', "quote: it must be a single ASCII character"),
        ('value = "1"\n', "", "needs a value"),
        ('["x", 1]', '["x", 2020-01-05]', "table 'words', column 'b' must hold only strings, only numbers"),
        ('["x", 1]', '["x", "1"]', "column 'b' must hold only strings"),
        ('["x", 1]', '["x", true]', "column 'b' must hold only strings"),
        ('["x", 1]', '["x", [1]]', "column 'b' must hold only strings"),
        ('["a", "b"]', '["a", "A"]', "table 'words', columns: 'a' and 'A' differ only in case"),
        ('["a", "b"]', '["a", "a"]', "'a' is listed twice"),
        ('["a", "b"]', '["a", ""]', "'' is not allowed as a name"),
    ],
)
def test_what_no_mapping_can_say(written, old, new, words):
    assert old in GOOD
    path = written(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_mapping(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


JSON = (
    GOOD
    + """
[macros]
"twice(x)" = "2 * x"

[tables.resources]
json = "*.ndjson"
kind = "type"
shapes = { Word = { text = "text" } }
columns = { type = "text", words = ["Word"] }
"""
)


def test_a_json_table_and_a_macro(written):
    mapping = load_mapping(written(JSON))
    assert mapping.tables["resources"] == JsonTable(
        ("*.ndjson",), {"type": "text", "words": ["Word"]}, {"Word": {"text": "text"}}, "type"
    )
    assert mapping.macros == {"twice(x)": "2 * x"}


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"2 * x"', "2", "macros: 'twice(x)' must be a string"),
        ('kind = "type"', 'kind = "typ"', "kind = 'typ' is not one of its columns"),
        (
            '["Word"]',
            '["Wort"]',
            "table 'resources', column 'words[]' has the type \"Wort\" (did you mean 'Word'?)",
        ),
        ('json = "*.ndjson"', "json = [1]", "json must be a string or a list of strings"),
        ('json = "*.ndjson"', 'json = "*.ndjson"\nfiles = "x"', "exactly one of files, rows, sql, json"),
    ],
)
def test_what_no_json_table_can_say(written, old, new, words):
    assert old in JSON
    with pytest.raises(InputError) as caught:
        load_mapping(written(JSON.replace(old, new)))
    assert words in str(caught.value)


def test_which_codes_are_known_late_may_be_said(written):
    assert load_mapping(written(GOOD)).leaks == LeakageRules()
    assert load_mapping(written(GOOD + '\n[leaks]\ncodes = ["DRG//", "BILL"]\n')).leaks == LeakageRules(
        ("DRG", "BILL")
    )
    assert load_mapping(written(GOOD + "\n[leaks]\ncodes = []\n")).leaks == LeakageRules(())
    with pytest.raises(InputError, match="leaks: unknown key 'code'"):
        load_mapping(written(GOOD + '\n[leaks]\ncode = ["DRG"]\n'))
    with pytest.raises(InputError, match="leaks, codes must be a string or a list of strings"):
        load_mapping(written(GOOD + "\n[leaks]\ncodes = [1]\n"))
    with pytest.raises(InputError, match="at_transfer is 'never', but must be one of compare, move"):
        load_mapping(written(GOOD + '\n[leaks]\nat_transfer = "never"\n'))


def test_a_rule_may_say_whether_its_events_are_known_late(written, tmp_path):
    said = GOOD.replace("[[events]]", "[[events]]\nlate = true", 1)
    assert load_mapping(written(said)).leaks == LeakageRules(late=frozenset({1}))
    assert load_mapping(written(said.replace("true", "false"))).leaks == LeakageRules(timely=frozenset({1}))
    off = '\n[leaks]\ncodes = []\nat_transfer = "keep"\n'
    assert load_mapping(written(said + off)).leaks == LeakageRules((), at_transfer="keep"), (
        "no codes: no rules either"
    )


def test_what_a_mapping_says_of_leaks_stands_on_what_the_one_it_extends_says(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nextends = "omop"\n[leaks]\nat_transfer = "move"\n')
    own, omop = load_mapping(path).leaks, load_mapping("omop").leaks
    assert "ICD10GM" in omop.codes and len(omop.late) == len(omop.timely) == 1
    assert (own.codes, own.late, own.at_transfer) == (omop.codes, omop.late, "move")
