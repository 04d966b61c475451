"""The mapping of the OMOP Common Data Model: on rows made up for one rule each."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest

CONCEPTS = """concept_id,concept_name,vocabulary_id,concept_code
0,No matching concept,None,No matching concept
201826,Type 2 diabetes mellitus,SNOMED,44054006
45576876,Type 2 diabetes mellitus with hyperglycemia,ICD10CM,E11.65
45533017,Hyperlipidemia,ICD9CM,272.4
3016723,Creatinine in serum,LOINC,2160-0
3009261,Glucose in urine,LOINC,2349-9
8840,milligram per deciliter,UCUM,mg/dL
9189,Negative,SNOMED,260385009
1503297,metformin,RxNorm,6809
21600747,metformin,ATC,A10BA02
45000001,Metformin 500 MG,NDC,00093104801
2000000001,A drug of this house,HOUSE DRUGS,M 5
4107731,Operation on appendix,SNOMED,80146002
2211361,Chest x-ray,CPT4,71045
4027133,Smoking status,SNOMED,365981007
3040000,Heart failure and shock,DRG,291
32893,EHR claim of some sort,Type Concept,x
9201,Inpatient Visit,Visit,IP
581379,Inpatient Critical Care Facility,CMS Place of Service,OMOP1
700001,Group Session,Visit,G
"""
# Every patient was born in 1950 and is a woman, 9 is not among them
PERSON = "person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id\n" + "".join(
    f"{patient},8532,1950,8527,38003564\n" for patient in (1, 2, 3)
)
VISIT = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date"
CONDITION = (
    "person_id,condition_concept_id,condition_start_date,condition_type_concept_id,condition_start_datetime,"
    "condition_source_concept_id,condition_source_value,visit_occurrence_id,condition_status_concept_id"
)
DRUG = "person_id,drug_concept_id,drug_exposure_start_date,drug_source_concept_id,drug_source_value"
MEASUREMENT = (
    "person_id,measurement_concept_id,measurement_date,measurement_datetime,measurement_time,operator_concept_id,"
    "value_as_number,value_as_concept_id,unit_concept_id,unit_source_value,measurement_source_value,value_source_value"
)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    """Ingests a folder with the given tables (CSV) and returns what it made but sex, race and birth."""

    def run(source: str | Path = "omop", **tables: str | None) -> pl.DataFrame:
        raw = tmp_path / "raw"
        raw.mkdir()
        for name, content in ({"person": PERSON, "concept": CONCEPTS} | tables).items():
            if content is not None:
                (raw / f"{name}.csv").write_text(content)
        run.report = ingest(source, raw, tmp_path / "out")
        run.all = events = read_events(tmp_path / "out")
        known = ("GENDER//F", "RACE//WHITE", "ETHNICITY//NOT HISPANIC OR LATINO", "MEDS_BIRTH")
        return events.filter(~pl.col("code").is_in(known))

    return run


def told(events: pl.DataFrame) -> list[tuple]:
    """(patient, day or day and time, code) of each event."""
    rows = events.select("subject_id", pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"), "code").rows()
    return [(patient, time and time.replace(" 23:59:59", ""), code) for patient, time, code in rows]


def dropped(report: dict, table: str) -> dict[str, int]:
    *_, rule = report["tables"][table]["rules"]
    return rule["dropped"]


def test_the_vocabulary_as_athena_gives_it(made, tmp_path):
    """CONCEPT.csv is separated by tabs and quotes nothing; names hold lone quotes. With quotes it cannot be read."""
    header = (
        "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code\t"
        "valid_start_date\tvalid_end_date\tinvalid_reason\n"
    )
    dates = "19700101\t20991231\t"
    concepts = (
        f'40481841\tNeedle 1" long, "blunt\tDevice\tSNOMED\tPhysical Object\tS\t444444\t{dates}\n'
        f'45576876\t"Diabetes", so called\tCondition\tICD10CM\t5-char billing code\t\tE11.65\t{dates}\n'
        f'201826\tType 2 diabetes mellitus\tCondition\tSNOMED\tDisorder\tS\t44054006\t{dates}\n'
    )
    tables = {
        "CONCEPT": header + concepts,
        "condition_occurrence": f"{CONDITION}\n1,201826,2020-01-01,1,,0,,,\n2,201826,2020-01-01,1,,45576876,,,\n"
        "3,40481841,2020-01-01,1,,0,,,\n",
    }
    events = made(concept=None, **tables)
    expected = {"SNOMED//44054006": "Type 2 diabetes mellitus", "ICD10CM//E1165": '"Diabetes", so called',
                "SNOMED//444444": 'Needle 1" long, "blunt'}  # fmt: skip
    assert set(events["code"]) == set(expected)
    said = pl.read_parquet(tmp_path / "out/metadata/codes.parquet").select("code", "description")
    assert dict(said.filter(pl.col("code").is_in(list(expected))).rows()) == expected

    mapping = tmp_path / "quoted.toml"
    mapping.write_text(
        'name = "quoted"\nextends = "omop"\n[tables.concept]\nfiles = "concept.csv"\nquote = \'"\'\n'
        'columns = { concept_id = "integer", concept_name = "text", vocabulary_id = "text", concept_code = "text" }\n'
    )
    with pytest.raises(InputError, match=r"CONCEPT\.csv"):
        ingest(mapping, tmp_path / "raw", tmp_path / "quoted")


def test_who(made):
    person = (
        "person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id,month_of_birth,day_of_birth,"
        "birth_datetime,gender_source_value,race_source_value\n"
        "1,8507,1950,8516,38003563,7,15,,M,\n"
        "2,0,1960,0,38003563,2,30,,female,UNKNOWN\n"
        "-3,8551,1970,0,0,,,1970-05-06 07:08:09,U,Klingon\n"
    )
    made(person=person)
    assert told(made.all) == [
        (-3, None, "RACE//KLINGON"),
        (-3, "1970-05-06 00:00:00", "MEDS_BIRTH"),
        (1, None, "GENDER//M"),
        (1, None, "RACE//BLACK OR AFRICAN AMERICAN"),
        (1, None, "ETHNICITY//HISPANIC OR LATINO"),
        (1, "1950-07-15 00:00:00", "MEDS_BIRTH"),
        (2, None, "GENDER//F"),
        (2, None, "RACE//HISPANIC OR LATINO"),
        (2, None, "ETHNICITY//HISPANIC OR LATINO"),
        (2, "1960-02-01 00:00:00", "MEDS_BIRTH"),
    ]  # there is no thirtieth of February
    rules = made.report["tables"]["person"]["rules"]
    assert [rule["dropped"] for rule in rules] == [
        {"sex not known": 1},
        {},
        {"ethnicity not known": 1},
        {},
    ]


def test_visits_of_all_kinds(made):
    visits = {
        1: (9201, "HOSPITAL_ADMISSION//INPATIENT", "HOSPITAL_DISCHARGE//UNKNOWN"),
        2: (9203, "ED_ADMISSION", "ED_DISCHARGE"),
        3: (262, "HOSPITAL_ADMISSION//EMERGENCY", "HOSPITAL_DISCHARGE//UNKNOWN"),
        4: (9202, "ENCOUNTER_START//OUTPATIENT", "ENCOUNTER_END//OUTPATIENT"),
        5: (581476, "ENCOUNTER_START//HOME", "ENCOUNTER_END//HOME"),
        6: (5083, "ENCOUNTER_START//TELEHEALTH", "ENCOUNTER_END//TELEHEALTH"),
        7: (32037, "ICU_ADMISSION//INTENSIVE CARE", "ICU_DISCHARGE//INTENSIVE CARE"),
        8: (0, "ENCOUNTER_START//UNKNOWN", "ENCOUNTER_END//UNKNOWN"),
        9: (700001, "ENCOUNTER_START//GROUP_SESSION", "ENCOUNTER_END//GROUP_SESSION"),
        10: (700002, "ENCOUNTER_START//OMOP_700002", "ENCOUNTER_END//OMOP_700002"),
    }
    rows = [f"{n},1,{kind},2020-{n:02d}-01,2020-{n:02d}-02" for n, (kind, *_) in visits.items()]
    events = made(visit_occurrence="\n".join([VISIT, *rows]) + "\n")
    expected = []
    for n, (_, start, end) in visits.items():
        expected += [(1, f"2020-{n:02d}-01", start), (1, f"2020-{n:02d}-02", end)]
    assert told(events) == expected


@pytest.mark.parametrize(
    "columns", ["discharged_to_concept_id", "discharge_to_concept_id"], ids=["5.4", "5.3"]
)
def test_where_a_stay_ends(made, columns):
    visits = (
        f"{VISIT},{columns},{columns.replace('concept_id', 'source_value')},visit_start_datetime,visit_end_datetime\n"
        "1,1,9201,2020-01-01,2020-01-05,4216643,X,2020-01-01 10:00:00,2020-01-05 11:30:00\n"
        "2,2,9203,2020-01-01,2020-01-01,0,home ,2020-01-01 10:00:00,\n"
        "3,3,9201,2020-01-01,,,,2020-01-01 10:00:00,\n"
        "4,9,9201,2020-01-01,2020-01-05,,,,\n"
    )
    assert told(made(visit_occurrence=visits)) == [
        (1, "2020-01-01 10:00:00", "HOSPITAL_ADMISSION//INPATIENT"),
        (1, "2020-01-05 11:30:00", "HOSPITAL_DISCHARGE//DIED"),
        (2, "2020-01-01 10:00:00", "ED_ADMISSION"),
        (2, "2020-01-01", "ED_DISCHARGE//HOME"),
        (3, "2020-01-01 10:00:00", "HOSPITAL_ADMISSION//INPATIENT"),  # still there
    ]
    rules = made.report["tables"]["visits"]["rules"]
    assert sum(rule["dropped"].get("no such person", 0) for rule in rules) == 2


def test_departments_and_the_way_from_the_emergency_department_to_a_ward(made):
    visits = (
        f"{VISIT}\n1,1,9203,2020-01-01,2020-01-09\n2,2,9203,2020-01-01,2020-01-02\n"
        "3,3,9202,2020-01-01,2020-01-01\n"
    )
    details = (
        "person_id,visit_detail_concept_id,visit_detail_start_date,visit_detail_end_date,visit_occurrence_id,"
        "visit_detail_start_datetime,visit_detail_end_datetime,care_site_id\n"
        "1,9203,2020-01-01,2020-01-02,1,2020-01-01 20:00:00,2020-01-02 02:00:00,10\n"
        "1,9201,2020-01-02,2020-01-04,1,2020-01-02 02:00:00,2020-01-04 08:00:00,11\n"
        "1,9201,2020-01-04,2020-01-06,1,2020-01-04 08:00:00,2020-01-06 09:00:00,12\n"
        "1,581379,2020-01-06,2020-01-07,1,2020-01-06 09:00:00,2020-01-07 09:00:00,13\n"
        "2,9203,2020-01-01,2020-01-02,2,,,10\n"
        "3,9202,2020-01-01,2020-01-01,3,,,\n"
    )
    sites = "care_site_id,care_site_name\n10,Emergency\n11,Ward 7\n12,Surgical ICU\n13,Unknown\n"
    assert told(made(visit_occurrence=visits, visit_detail=details, care_site=sites)) == [
        (1, "2020-01-01 20:00:00", "DEPARTMENT//Emergency"),
        (1, "2020-01-01", "ED_ADMISSION"),
        (1, "2020-01-02 02:00:00", "ED_DISCHARGE//ADMITTED"),
        (1, "2020-01-02 02:00:00", "HOSPITAL_ADMISSION//EMERGENCY"),
        (1, "2020-01-02 02:00:00", "DEPARTMENT//Ward 7"),
        (1, "2020-01-04 08:00:00", "ICU_ADMISSION//Surgical ICU"),
        (1, "2020-01-06 09:00:00", "ICU_ADMISSION//INTENSIVE CARE"),
        (1, "2020-01-06 09:00:00", "ICU_DISCHARGE//Surgical ICU"),
        (1, "2020-01-07 09:00:00", "ICU_DISCHARGE//INTENSIVE CARE"),
        (1, "2020-01-09", "HOSPITAL_DISCHARGE//UNKNOWN"),
        (2, "2020-01-01", "ED_ADMISSION"),
        (2, "2020-01-01", "DEPARTMENT//Emergency"),
        (2, "2020-01-02", "ED_DISCHARGE"),
        (3, "2020-01-01", "ENCOUNTER_START//OUTPATIENT"),
        (3, "2020-01-01", "ENCOUNTER_END//OUTPATIENT"),
    ]


CONDITIONS = (
    f"{CONDITION}\n"
    "1,201826,2020-01-02,32817,2020-01-02 08:00:00,45576876,E11.65,,\n"  # recorded as ICD-10-CM
    "1,201826,2020-01-03,32817,,0,,,\n"  # as SNOMED alone
    "1,0,2020-01-04,32817,,45533017,272.4,,\n"
    "1,0,2020-01-05,32817,,0, local ,,\n"  # as a word alone
    "1,777777,2020-01-06,32817,,,,,\n"  # a concept that the vocabulary does not have
    "1,0,2020-01-07,32817,,0,,,\n"
    "9,201826,2020-01-07,32817,,,,,\n"
)


@pytest.mark.parametrize(
    "source, first",
    [("omop", "ICD10CM//E1165"), ("omop_source", "ICD10CM//E1165"), ("omop_standard", "SNOMED//44054006")],
)
def test_which_concept_makes_the_code(made, source, first):
    events = made(source, condition_occurrence=CONDITIONS)
    assert told(events) == [
        (1, "2020-01-02 08:00:00", first),
        (1, "2020-01-03", "SNOMED//44054006"),
        (1, "2020-01-04", "ICD9CM//2724"),
        (1, "2020-01-05", "DIAGNOSIS//local"),
        (1, "2020-01-06", "OMOP_CONDITION_OCCURRENCE//777777"),
    ]
    assert dropped(made.report, "condition_occurrence") == {"no concept": 1, "no such person": 1}


def test_without_a_vocabulary_concepts_are_numbers(made):
    events = made(
        condition_occurrence=CONDITIONS, concept="concept_id,concept_name,vocabulary_id,concept_code\n"
    )
    assert events["code"].to_list() == [
        "OMOP_CONDITION_OCCURRENCE//201826", "OMOP_CONDITION_OCCURRENCE//201826",
        "OMOP_CONDITION_OCCURRENCE//45533017", "DIAGNOSIS//local", "OMOP_CONDITION_OCCURRENCE//777777"
    ]  # fmt: skip


def test_a_house_with_concepts_of_its_own(made):
    local = "concept_id,concept_name,vocabulary_id,concept_code\n777777,Own,My house,A B\n201826,Twice,X,Y\n"
    events = made(**{"condition_occurrence": CONDITIONS, "2b_concept": local})
    assert events["code"].to_list()[1:] == [
        "SNOMED//44054006", "ICD9CM//2724", "DIAGNOSIS//local", "MY_HOUSE//A B"
    ]  # fmt: skip


def test_what_stands_where_a_stay_opens_leaks_unless_it_is_told_at_admission(made):
    begin, end = "2020-01-01 10:00:00", "2020-01-09 10:00:00"
    visits = f"{VISIT},visit_start_datetime,visit_end_datetime\n1,1,9201,2020-01-01,2020-01-09,{begin},{end}\n"
    ours = f"1,201826,2020-01-01,32817,{begin}"
    conditions = f"{CONDITION}\n{ours},45576876,,1,32890\n{ours},45533017,,,\n{ours},0,,,\n"
    columns = "person_id,observation_concept_id,observation_date,observation_type_concept_id,observation_datetime"
    smoker = f"{columns}\n1,4027133,2020-01-01,32817,{begin}\n"
    events = made(visit_occurrence=visits, condition_occurrence=conditions, observation=smoker)
    when = {code: time for _, time, code in told(events)}
    assert when["ICD10CM//E1165"] == when["SNOMED//365981007"] == begin
    assert when["ICD9CM//2724"] == when["SNOMED//44054006"] == end, "no visit is told for these"
    assert made.report["moved"] == {"at admission -> at discharge": 2}


def test_a_diagnosis_is_not_known_before_it_was_written(made):
    visits = (
        f"{VISIT},visit_start_datetime,visit_end_datetime\n"
        "1,1,9201,2020-01-01,2020-01-09,2020-01-01 10:00:00,2020-01-09 10:00:00\n"
        "2,1,9202,2020-03-01,2020-03-01,,\n"
        "3,2,9201,2020-01-01,2020-01-09,2020-01-01 10:00:00,2020-01-09 10:00:00\n"
    )
    rows = [
        ("32821", "2020-01-01", "", "1", "", "2020-01-09 10:00:00"),  # from the bill
        ("32893", "2020-01-02", "", "1", "", "2020-01-09 10:00:00"),  # from a claim, by the name of its type
        ("38000200", "2020-01-02", "", "1", "", "2020-01-09 10:00:00"),  # from an old claim
        ("32817", "2020-01-02", "", "1", "32903", "2020-01-09 10:00:00"),  # main diagnosis at discharge
        (
            "32817",
            "2020-01-01",
            "2020-01-01 10:00:00",
            "1",
            "",
            "2020-01-09 10:00:00",
        ),  # dated as the admission
        ("32817", "2019-12-01", "", "1", "", "2020-01-09 10:00:00"),  # an onset that was told during the stay
        (
            "32817",
            "2020-01-01",
            "2020-01-01 10:00:00",
            "1",
            "32890",
            "2020-01-01 10:00:00",
        ),  # admission diagnosis
        ("32817", "2020-01-02", "2020-01-02 09:00:00", "1", "", "2020-01-02 09:00:00"),  # during the stay
        ("32821", "2020-02-01", "", "1", "", "2020-02-01"),  # a bill after the stay
        ("32821", "2020-03-01", "", "2", "", "2020-03-01"),
        ("32817", "2020-02-03", "", "2", "", "2020-03-01"),  # an onset before the visit
        ("32821", "2020-04-01", "", "", "", "2020-04-01"),  # no visit
        ("32821", "2020-04-02", "", "99", "", "2020-04-02"),  # a visit that does not exist
        ("32821", "2020-01-03", "", "3", "", "2020-01-03"),  # a visit of somebody else
        ("42894222", "2020-01-01", "2020-01-01 10:00:00", "1", "", "2020-01-01 10:00:00"),  # chief complaint
    ]
    lines = [
        f"1,{800000 + n},{day},{kind},{moment},,,{visit},{state}"
        for n, (kind, day, moment, visit, state, _) in enumerate(rows)
    ]
    lines[-1] = lines[-1].replace(f"{800000 + len(rows) - 1}", "201826")
    events = told(made(visit_occurrence=visits, condition_occurrence="\n".join([CONDITION, *lines]) + "\n"))
    when = {code: time for _, time, code in events}
    assert [when[f"OMOP_CONDITION_OCCURRENCE//{800000 + n}"] for n in range(len(rows) - 1)] == [
        row[-1] for row in rows[:-1]
    ]
    assert when["CHIEF_COMPLAINT//TYPE 2 DIABETES MELLITUS"] == rows[-1][-1]


def test_drugs_and_procedures(made):
    drugs = (
        f"{DRUG}\n1,1503297,2020-01-01,45000001,00093104801\n1,1503297,2020-01-02,21600747,A10BA02\n"
        "1,0,2020-01-03,2000000001,M\n1,0,2020-01-04,0,5% Dextrose \n1,0,2020-01-05,0,\n"
    )
    procedures = (
        "person_id,procedure_concept_id,procedure_date,procedure_datetime,procedure_source_concept_id,"
        "procedure_source_value\n1,4107731,2020-02-01,2020-02-01 00:00:00,,\n"
        "1,4107731,2020-02-02,2020-02-02 12:00:00,2211361,71045\n1,0,2020-02-03,,0,Suture\n"
    )
    assert told(made(drug_exposure=drugs, procedure_occurrence=procedures)) == [
        (1, "2020-01-01", "RXNORM//6809"),
        (1, "2020-01-02", "ATC//A10BA02"),
        (1, "2020-01-03", "HOUSE_DRUGS//M 5"),
        (1, "2020-01-04", "MEDICATION//5% DEXTROSE"),
        (1, "2020-02-01", "PROCEDURE//SNOMED//80146002"),
        (1, "2020-02-02 12:00:00", "CPT4//71045"),
        (1, "2020-02-03", "PROCEDURE//Suture"),
    ]
    assert dropped(made.report, "drug_exposure") == {"no concept": 1}


def test_measurements(made):
    rows = (
        f"{MEASUREMENT}\n"
        "1,3016723,2020-01-01,2020-01-01 08:00:00,,0,1.9,,8840,mg/dl,2160-0,1.9\n"
        "1,3016723,2020-01-02,2020-01-02 00:00:00,07:15:00,4171756,0.2,0,0,mg/dl,,<0.2\n"
        "1,3009261,2020-01-03,,2020-01-03,,,9189,,,,neg\n"
        "1,3009261,2020-01-04,,,,,,,,,see report\n"
        "1,3009261,2020-01-04,,,,,,,,,-0.3\n"
        "1,0,2020-01-05,,,,nan,,0,g,Iron ,\n"
        "1,0,2020-01-06,,,,7,,,,Iron,\n"
        "1,0,2020-01-07,,,,7,,,,,\n"
    )
    events = made(measurement=rows)
    assert told(events) == [
        (1, "2020-01-01 08:00:00", "LOINC//2160-0"),
        (1, "2020-01-02 07:15:00", "LOINC//2160-0"),
        (1, "2020-01-03", "LOINC//2349-9//NEGATIVE"),
        (1, "2020-01-04", "LOINC//2349-9"),
        (1, "2020-01-04", "LOINC//2349-9//SEE REPORT"),
        (1, "2020-01-05", "LAB//Iron//g"),
        (1, "2020-01-06", "LAB//Iron//UNK"),
    ]
    assert events["numeric_value"].to_list() == pytest.approx([1.9, 0.2, None, None, None, None, 7.0], nan_ok=False)
    assert events["text_value"].to_list() == [None, "<0.2", "Negative", "-0.3", "see report", None, None]
    assert dropped(made.report, "measurement") == {"no concept": 1}


def test_observations_and_billing_groups(made):
    visits = f"{VISIT}\n1,1,9201,2020-01-01,2020-01-09\n"
    rows = (
        "person_id,observation_concept_id,observation_date,observation_type_concept_id,value_as_string,"
        "value_as_concept_id,visit_occurrence_id,observation_source_value\n"
        "1,4027133,2020-01-02,32817,,9189,1,\n1,4027133,2020-01-03,32817,10 a day,,1,\n"
        "1,3040000,2020-01-01,32817,,,1,\n1,4027133,2020-01-04,32821,late,,1,\n1,0,2020-01-05,32817,,,1,Pet\n"
    )
    events = made(visit_occurrence=visits, observation=rows)
    assert told(events) == [
        (1, "2020-01-01", "HOSPITAL_ADMISSION//INPATIENT"),
        (1, "2020-01-02", "SNOMED//365981007//NEGATIVE"),
        (1, "2020-01-03", "SNOMED//365981007//10 A DAY"),
        (1, "2020-01-05", "OBSERVATION//Pet"),
        (1, "2020-01-09", "DRG//MS//291"),
        (1, "2020-01-09", "SNOMED//365981007//LATE"),
        (1, "2020-01-09", "HOSPITAL_DISCHARGE//UNKNOWN"),
    ]
    assert events["text_value"].to_list() == [None, "Negative", "10 a day", None, None, "late", None]


def test_deaths_and_the_end_of_observation(made):
    death = (
        "person_id,death_date,death_datetime\n1,2020-05-06,\n1,2020-05-05,\n1,2020-05-05,2020-05-05 04:00:00\n"
        "2,2021-05-05,2021-05-05 00:00:00\n9,2020-05-05,\n"
    )
    periods = (
        "person_id,observation_period_start_date,observation_period_end_date\n1,2001-01-01,2010-12-31\n"
        "1,2015-01-01,2020-12-31\n3,2001-01-01,2010-12-31\n3,2015-01-01,2020-12-31\n"
    )
    visits = (
        f"{VISIT},visit_start_datetime,visit_end_datetime,discharged_to_concept_id\n"
        "1,1,9201,2020-05-01,2020-05-05,2020-05-01 08:00:00,2020-05-05 11:00:00,4216643\n"
        "2,1,9202,2020-06-01,2020-06-01,,,\n"
    )
    drugs = f"{DRUG}\n1,1503297,2020-05-05,0,on the day of death\n1,1503297,2020-05-06,0,\n"
    events = made(death=death, observation_period=periods, visit_occurrence=visits, drug_exposure=drugs)
    assert told(events) == [
        (1, "2020-05-01 08:00:00", "HOSPITAL_ADMISSION//INPATIENT"),
        (1, "2020-05-05 04:00:00", "RXNORM//6809"),
        (1, "2020-05-05 04:00:00", "HOSPITAL_DISCHARGE//DIED"),
        (1, "2020-05-05 04:00:00", "MEDS_DEATH"),
        (1, "2020-05-05 04:00:00", "FOLLOW_UP//END"),
        (2, "2021-05-05", "MEDS_DEATH"),
        (2, "2021-05-05", "FOLLOW_UP//END"),
        (3, "2020-12-31", "FOLLOW_UP//END"),
    ]
    assert dropped(made.report, "deaths") == {"a second death": 2, "no such person": 1}
    assert dropped(made.report, "drug_exposure") == {"after follow-up end": 1}
    starts = made.report["tables"]["visits"]["rules"][4]
    assert starts["dropped"] == {"not selected": 1, "after follow-up end": 1}


def test_a_death_after_the_observation_is_one_that_nobody_would_have_known_of_in_others(made):
    death = "person_id,death_date\n1,2021-06-01\n2,2010-12-31\n3,2021-06-01\n"
    periods = (
        "person_id,observation_period_start_date,observation_period_end_date\n"
        "1,2015-01-01,2020-12-31\n2,2001-01-01,2010-12-31\n"
    )
    assert told(made(death=death, observation_period=periods)) == [
        (1, "2020-12-31", "FOLLOW_UP//END"),
        (2, "2010-12-31", "MEDS_DEATH"),
        (2, "2010-12-31", "FOLLOW_UP//END"),
        (3, "2021-06-01", "MEDS_DEATH"),
        (3, "2021-06-01", "FOLLOW_UP//END"),
    ], "of the third nothing is said but the death"
    assert dropped(made.report, "deaths") == {"after the last observation period": 1}


def test_an_extension_may_say_until_when_the_data_are_complete(made, tmp_path):
    ours = tmp_path / "ours.toml"
    said = '"complete_until()" = "TIMESTAMP \'2021-12-31\'"'
    ours.write_text(f'name = "ours"\nextends = "omop"\n[macros]\n{said}\n')
    periods = "person_id,observation_period_start_date,observation_period_end_date\n1,2015-01-01,2020-12-31\n"
    events = made(ours, death="person_id,death_date\n2,2022-06-01\n", observation_period=periods)
    assert [row[:2] for row in told(events)] == [
        (1, "2020-12-31"), (2, "2021-12-31 00:00:00"), (3, "2021-12-31 00:00:00"),
    ]  # fmt: skip


def test_what_the_model_demands_must_be_there(made):
    with pytest.raises(InputError, match=r"person\.csv has no column 'year_of_birth'"):
        made(person=PERSON.replace("year_of_birth", "born"))


def test_the_visit_that_a_row_names_decides_and_not_another_that_is_open(made):
    """Two visits begin together; a condition stands at the end of its own, a date without a clock no later than it."""
    visits = (
        f"{VISIT},visit_start_datetime,visit_end_datetime\n"
        "1,1,9201,2020-01-01,2020-01-15,2020-01-01 08:00:00.0000000 +00:00,2020-01-15 14:00:00.0000000 +00:00\n"
        "2,1,9202,2020-01-01,2020-01-01,2020-01-01 08:00:00.0000000 +00:00,2020-01-01 08:30:00.0000000 +00:00\n"
        "3,2,9201,2020-01-01,2099-12-31,2020-01-01 08:00:00.0000000 +00:00,2099-12-31 00:00:00.0000000 +00:00\n"
    )
    start = "2020-01-01,1,2020-01-01 08:00:00.0000000 +00:00,0,"
    conditions = f"{CONDITION}\n1,201826,{start},1,\n1,4027133,{start},2,\n2,201826,{start},3,\n"
    days = "".join(f"1,1503297,2020-01-{day},0,,{visit}\n" for day, visit in ((15, 1), ("01", 2), (14, 1)))
    drugs = f"{DRUG},visit_occurrence_id\n{days}"
    periods = "person_id,observation_period_end_date\n1,9999-12-31\n2,2099-12-31\n3,2020-06-01\n"
    events = made(visit_occurrence=visits, condition_occurrence=conditions, drug_exposure=drugs,
                  observation_period=periods)  # fmt: skip
    assert told(events.filter(pl.col("code").str.contains("^SNOMED|^RXNORM|DISCHARGE|FOLLOW"))) == [
        (1, "2020-01-01 08:30:00", "SNOMED//365981007"),
        (1, "2020-01-01 08:30:00", "RXNORM//6809"),
        (1, "2020-01-14", "RXNORM//6809"),
        (1, "2020-01-15 14:00:00", "SNOMED//44054006"),
        (1, "2020-01-15 14:00:00", "RXNORM//6809"),
        (1, "2020-01-15 14:00:00", "HOSPITAL_DISCHARGE//UNKNOWN"),
        (2, "2020-01-01 08:00:00", "SNOMED//44054006"),
        (3, "2020-06-01", "FOLLOW_UP//END"),
    ]
    assert made.report["tables"]["visit_occurrence"]["sentinels"] == {"visit_end_date": 1, "visit_end_datetime": 1}
    assert made.report["tables"]["observation_period"]["sentinels"] == {"observation_period_end_date": 2}
    assert made.report["moved"]["not moved: the end of the stay is not known"] == 1
