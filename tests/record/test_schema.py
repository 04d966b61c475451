import subprocess
import sys

import meds

from sequela.record import schema as layout


def test_the_names_are_those_of_the_package_meds():
    assert meds.data_subdirectory == layout.DATA
    assert meds.subject_splits_filepath == layout.SPLITS_FILE
    assert meds.code_metadata_filepath == layout.CODES_FILE
    assert meds.dataset_metadata_filepath == layout.FACTS_FILE
    assert (meds.train_split, meds.tuning_split, meds.held_out_split) == layout.SPLITS


def test_tokenizing_imports_no_schemas():
    heavy = "{'meds', 'jsonschema', 'pandas', 'torch'}"
    code = f"import sys, sequela.tokens.ehr.tokenize; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
