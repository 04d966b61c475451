"""The tokenizer of a language model from its files, against that of transformers."""

import json

import pytest
from transformers import AutoTokenizer

from sequela.errors import InputError
from sequela.tokens.text import bpe
from sequela.tokens.text.bpe import TokenizerFiles
from sequela.tokens.text.tokenizer import TextTokenizer
from tests.tokens.text.language_model import END, as_published, language_model

TEXTS = [
    "Birth: 1985-03-15\n\n\n[2024-01-05]\nICD10:C34.90\n\n[2024-01-10]\nLOINC:2160-0 (mg/dL): 1.10, 1.23",
    "Ünïcode e\u0301 🙂 don't\t  x\r\n\r\n y", f"A{END}B", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("words") / "qwen")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("words") / "llama", "llama", longest=300)


def ids(folder):
    return [encoding.ids for encoding in TextTokenizer.load(folder)._words.encode_batch(TEXTS)]


def test_words_are_those_of_transformers(qwen, llama, tmp_path):
    published = as_published(tmp_path / "published", qwen)
    for folder in (qwen, llama, published):
        theirs = AutoTokenizer.from_pretrained(folder)
        assert ids(folder) == [theirs(text)["input_ids"] for text in TEXTS]
    assert ids(qwen) == ids(published)
    assert all(row[0] == ids(llama)[3][0] for row in ids(llama)) and ids(qwen)[3] == []  # only Llama begins a text


def test_the_longest_text_is_known_where_it_is_told(qwen, llama, tmp_path):
    assert TokenizerFiles.load(qwen).longest is None and TokenizerFiles.load(llama).longest == 300
    (tmp_path / "tokenizer.json").write_bytes((qwen / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert TokenizerFiles.load(tmp_path).longest is None


def test_truncation_and_padding_in_the_files_do_not_touch_a_record(qwen, tmp_path):
    made = TextTokenizer.load(qwen)._words
    made.enable_truncation(8)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    assert ids(tmp_path) == ids(qwen)


def test_a_model_without_a_tokenizer_is_refused_with_what_to_do(qwen, tmp_path):
    with pytest.raises(InputError, match=r"has no tokenizer\.json.*copy that file there too.*save_pretrained"):
        TokenizerFiles.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        TokenizerFiles.load(tmp_path)


def test_added_tokens_of_another_model_are_refused(qwen, tmp_path):
    published = as_published(tmp_path / "published", qwen)
    (published / "added_tokens.json").write_text(json.dumps({END: 9999}))
    with pytest.raises(InputError, match="does not follow on"):
        TokenizerFiles.load(published)


def test_without_the_package_it_says_what_to_install(qwen, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(bpe, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'sequela\[text\]'"):
        TokenizerFiles.load(qwen)
