import numpy as np
import pytest
from hypothesis import given, settings

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.order import in_token_order, moving
from sequela.tokens.ehr.settings import TokenSettings
from tests.tokens.ehr.test_encode import CODES, STATICS, columns_of, people


@pytest.mark.parametrize(
    "scheme", [{}, {"fused": True}, {"joint": True}, {"fused": True, "joint": True}], ids=str
)
@settings(max_examples=40, deadline=None)
@given(people)
def test_codes_and_quantiles_come_back_in_every_scheme(scheme, population):
    known = [([STATICS[0]], [(1, row, 1.0) for row in range(len(CODES))], True)]
    columns = columns_of([*known, *population])
    tokenizer = fit(columns, TokenSettings(min_patients=1, **scheme))
    encoded = encode(tokenizer, columns)
    back = decode(tokenizer, encoded.tokens, np.zeros(len(encoded.patients), np.int64)).frame()
    true = in_token_order(moving(columns, tokenizer.settings))
    assert back["code"].to_list() == [columns.names[code] for code in true.code]
    rows = np.array([tokenizer.bins.rows.get(code, -1) for code in back["code"]], np.int64)
    told = back["numeric_value"].fill_null(np.nan).to_numpy()
    assert (tokenizer.bins.encode(rows, told) == tokenizer.bins.encode(rows, true.number)).all()


def test_the_clock_moves_by_the_mean_of_each_interval():
    lab = CODES.index("LAB//A")
    columns = columns_of([([], [(0, lab, 1.0), (70, lab, 2.0), (180, lab, np.nan)], False)])
    tokenizer = fit(columns, TokenSettings(min_patients=1))
    tokens, start = encode(tokenizer, columns).tokens, np.array([7 * MINUTE])
    back = decode(tokenizer, tokens, start).frame()
    assert back["time"].to_physical().to_list() == [
        7 * MINUTE,
        (7 + 90) * MINUTE,
        (7 + 180) * MINUTE,
    ]  # mean of 70, 110
    told = np.where(tokenizer.minutes_V[tokens.flat] > 0, 65, 0)  # as rollouts tell how far each of their tokens moved
    told[np.flatnonzero(told)[-1]] = 100
    assert decode(tokenizer, tokens, start, told).frame()["time"].to_physical().to_list() == [
        7 * MINUTE,
        (7 + 65) * MINUTE,
        (7 + 165) * MINUTE,
    ]


def test_a_code_that_holds_the_mark_of_fused_tokens_comes_back_whole():
    names = ("LAB//STRIP=Q7", "LAB//URINE=QUALITATIVE")
    columns = Events(
        np.ones(2, np.int64),
        np.array([0, 90]) * MINUTE,
        np.arange(2, dtype=np.int32),
        np.ones(2, np.float32),
        names,
    )
    tokenizer = fit(columns, TokenSettings(min_patients=1, fused=False))
    encoded = encode(tokenizer, columns)
    back = decode(tokenizer, encoded.tokens, np.zeros(1, np.int64)).frame()
    assert back["code"].to_list() == list(names) and back["numeric_value"].to_list() == [1.0, 1.0]
    with pytest.raises(InputError, match="rename it"):
        fit(columns, TokenSettings(min_patients=1, fused=True))
