"""Examples become token ids, spans of tokens and padded batches."""

from __future__ import annotations

import re

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CanineTokenizer, PreTrainedTokenizerFast

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.train.encoding import Collator, Rows, encode
from ffc.train.tasks import Example

WORDS = "[PAD] [CLS] [SEP] [UNK] we sat by the bank of river run ##ning ##s he fast long 0 1 2 3 4 5 6 7 8 9".split()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer in the manner of BERT."""
    return word_piece()


def word_piece(**options: str) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **options,
    )


@pytest.fixture(scope="module")
def slow() -> CanineTokenizer:
    """Return a tokenizer in Python: of characters, without a vocabulary file."""
    return CanineTokenizer()


def byte_level() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of single bytes in the manner of RoBERTa, without token types."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: place for place, char in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", model_input_names=["input_ids", "attention_mask"]
    )


@pytest.mark.parametrize("make", ["tokenizer", "slow"])
def test_a_tail_stays_where_the_first_text_is_cut(make: str, request: pytest.FixtureRequest) -> None:
    """What stands before it is cut, at the end of a word, and holds as many words as there is room for."""
    tokenizer = request.getfixturevalue(make)
    texts = [f"{'we sat by the river ' * count}running fast" for count in (1, 3, 9)]
    long = encode([Example(text, "the bank", tail=12) for text in texts], tokenizer, 1000)
    assert [row["input_ids"] for row in long] == [
        row["input_ids"] for row in encode([Example(text, "the bank") for text in texts], tokenizer, 1000)
    ]
    limit = long.lengths[1] - 1
    rows = encode([Example(text, "the bank", tail=12) for text in texts], tokenizer, limit)
    assert rows[0]["input_ids"] == long[0]["input_ids"], "what fits is as it was"
    assert rows[1]["input_ids"] == rows[2]["input_ids"]
    shown = tokenizer.decode(rows[2]["input_ids"])
    assert re.search(r"by the run ?(##)?ning fast.*the bank", shown)
    assert limit - len("river ") < len(rows[2]["input_ids"]) <= limit


def test_a_tail_that_is_too_long_itself_is_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("we sat by the river long running fast", "bank", tail=17)], tokenizer, 6)
    assert words(rows, 0, tokenizer) == ["[CLS]", "long", "run", "[SEP]", "bank", "[SEP]"]


def words(rows: Rows, row: int, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(rows[row]["input_ids"]))


def test_a_text_becomes_ids_mask_types_label_and_number(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("he sat", label=1), Example("We", label=0)], tokenizer)
    assert len(rows) == 2
    assert rows[1] == {
        "input_ids": [1, 4, 2],
        "attention_mask": [1, 1, 1],
        "token_type_ids": [0, 0, 0],
        "index": 1,
        "labels": 0,
    }
    assert rows.lengths == [4, 3]
    assert [row["index"] for row in rows] == [0, 1]


def test_a_pair_has_two_token_types(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("he sat", "we")], tokenizer)
    assert words(rows, 0, tokenizer) == ["[CLS]", "he", "sat", "[SEP]", "we", "[SEP]"]
    assert rows[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1]


def test_columns_that_the_tokenizer_does_not_make_are_absent() -> None:
    assert set(encode([Example("ab", "c", 1)], byte_level())[0]) == {"input_ids", "attention_mask", "index", "labels"}


def test_labels_are_there_for_all_rows_or_for_none(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("we", label=1), Example("he")], tokenizer)
    assert all("labels" not in row for row in rows)


def test_the_longer_part_of_a_pair_is_cut_first(tokenizer: PreTrainedTokenizerFast) -> None:
    long, short = "0 1 2 3 4 5 6 7 8 9", "he sat"
    first = encode([Example(long, short)], tokenizer, max_length=9)
    assert words(first, 0, tokenizer) == "[CLS] 0 1 2 3 [SEP] he sat [SEP]".split()
    second = encode([Example(short, long)], tokenizer, max_length=9)
    assert words(second, 0, tokenizer) == "[CLS] he sat [SEP] 0 1 2 3 [SEP]".split()
    both = encode([Example(long, long)], tokenizer, max_length=9)
    assert words(both, 0, tokenizer) == "[CLS] 0 1 2 [SEP] 0 1 2 [SEP]".split()
    assert first.max_length == 9


def test_more_rows_than_a_chunk_keep_their_order(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [
        Example(" ".join(str(digit) for digit in range(1 + number % 9)), label=number % 2) for number in range(25)
    ]
    whole = [dict(row) for row in encode(examples, tokenizer)]
    monkeypatch.setattr("ffc.train.encoding._CHUNK", 4)
    assert [dict(row) for row in encode(examples, tokenizer)] == whole


def test_encoding_twice_gives_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = [Example("he sat by the river bank", label=0)]
    before = encode(examples, tokenizer, max_length=5)[0]
    encode(examples, tokenizer, max_length=128)  # a fast tokenizer remembers how it last cut
    assert encode(examples, tokenizer, max_length=5)[0] == before


def spanned(first: str, second: str, one: tuple[int, int], two: tuple[int, int]) -> Example:
    return Example(first, second, label=0, spans=((0, *one), (1, *two)))


def test_spans_become_tokens_of_their_own_part(tokenizer: PreTrainedTokenizerFast) -> None:
    # characters 11:15 of the one are "bank", 4:11 of the other "running"
    example = spanned("We sat by, Bank", "he (running)", (11, 15), (4, 11))
    rows = encode([example], tokenizer)
    tokens = words(rows, 0, tokenizer)
    one, two = rows[0]["spans"]
    assert tokens[slice(*one)] == ["bank"]
    assert tokens[slice(*two)] == ["run", "##ning"]


def test_a_span_takes_every_token_that_it_touches(tokenizer: PreTrainedTokenizerFast) -> None:
    # characters 5:6 are an "n" within "run", 5:8 the end of "sat", a blank and the beginning of "by"
    rows = encode([spanned("he running", "we sat by the", (5, 6), (5, 8))], tokenizer)
    tokens = words(rows, 0, tokenizer)
    assert [tokens[slice(*span)] for span in rows[0]["spans"]] == [["run"], ["sat", "by"]]


def test_spans_are_right_in_bytes_too() -> None:
    # é and à are two bytes and so two tokens each; the token of the blank before à is outside
    tokenizer = byte_level()
    rows = encode([spanned("né à", "à", (1, 2), (0, 1)), spanned("né à", "à", (3, 4), (0, 1))], tokenizer)
    assert words(rows, 0, tokenizer)[slice(*rows[0]["spans"][0])] == ["Ã", "©"]
    assert words(rows, 1, tokenizer)[slice(*rows[1]["spans"][0])] == ["Ã", "ł"]


def test_a_span_that_was_cut_off_is_empty(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "0 1 2 3 4 5 6 7 8 9"
    rows = encode([spanned(text, "he sat", (18, 19), (3, 6)), spanned(text, "he sat", (4, 19), (0, 2))], tokenizer, 8)
    assert rows[0]["spans"] == [[0, 0], [6, 7]]
    assert rows[1]["spans"] == [[3, 4], [5, 6]]  # of the digits 2 to 9 only 2 is left: [CLS] 0 1 2 [SEP] he sat [SEP]


def test_a_tokenizer_in_python_will_do_for_texts(slow: CanineTokenizer) -> None:
    rows = encode([Example("ab", "xyz", 1), Example("c", "d", 0)], slow)
    assert [len(row["input_ids"]) for row in rows] == [8, 5]


def test_a_tokenizer_in_python_is_refused_for_spans(slow: CanineTokenizer) -> None:
    with pytest.raises(CannotApplyError, match="CanineTokenizer cannot tell which characters a token covers"):
        encode([spanned("we", "he", (0, 1), (0, 1))], slow)


@pytest.mark.parametrize(("example", "least"), [(Example("we"), 3), (Example("we", "he"), 5)])
def test_a_length_without_room_for_text_is_refused(
    tokenizer: PreTrainedTokenizerFast, example: Example, least: int
) -> None:
    assert len(encode([example], tokenizer, max_length=least)[0]["input_ids"]) == least
    with pytest.raises(UsageError, match=f"max_length={least - 1} leaves no room for text .* give {least}"):
        encode([example], tokenizer, max_length=least - 1)


def test_mixtures_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="row 1 is a pair and row 0 is not"):
        encode([Example("we"), Example("we", "he")], tokenizer)
    with pytest.raises(InputError, match="row 1 has 0 spans and row 0 has 2"):
        encode([spanned("we", "he", (0, 1), (0, 1)), Example("we", "he")], tokenizer)


def test_no_examples_give_no_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(encode([], tokenizer)) == 0


def test_a_batch_is_padded_to_its_longest_row(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("he sat", "we", 1), Example("he", "we", 0)], tokenizer)
    batch = Collator(tokenizer)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[1, WORDS.index("he"), 5, 2, 4, 2], [1, WORDS.index("he"), 2, 4, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 5 + [0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["index"].tolist() == [0, 1]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_is_padded_to_a_length_where_one_is_set(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("he")], tokenizer)
    assert Collator(tokenizer, pad_to=6)([rows[0]])["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0]]
    with pytest.raises(UsageError, match="a row of 3 tokens cannot be padded to 2; encode with max_length=2"):
        Collator(tokenizer, pad_to=2)([rows[0]])


def test_padding_uses_the_id_of_the_tokenizer() -> None:
    tokenizer = byte_level()
    rows = encode([Example("a"), Example("abc")], tokenizer)
    assert Collator(tokenizer)([rows[0], rows[1]])["input_ids"][0].tolist()[-2:] == [1, 1]


def test_padding_on_the_left_moves_spans_along() -> None:
    tokenizer = word_piece(padding_side="left")
    long = spanned("he sat by the bank", "we", (14, 18), (0, 2))
    short = spanned("he sat", "we 0 1 2", (3, 6), (7, 8))
    rows = encode([long, short], tokenizer, 8)
    cut = encode([spanned("he", "0 1 2 3 4", (0, 2), (8, 9))], tokenizer, 6)
    batch = Collator(tokenizer, pad_to=12)([rows[0], rows[1], cut[0]])
    assert batch["attention_mask"][0].tolist() == [0] * 4 + [1] * 8
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"].tolist()]
    found = [[row[slice(*span)] for span in spans] for row, spans in zip(tokens, batch["spans"].tolist(), strict=True)]
    assert found == [[[], ["we"]], [["sat"], []], [["he"], []]]
    assert batch["spans"][[0, 1], [0, 1]].tolist() == [[0, 0], [0, 0]]  # an empty one stays where it is


def test_columns_added_to_rows_come_along(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Example("we"), Example("he")], tokenizer)
    batch = Collator(tokenizer)([row | {"weight": 0.5} for row in rows])
    assert batch["weight"].tolist() == [0.5, 0.5]


def test_a_tokenizer_without_a_padding_token_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"we": 0}, unk_token="we")))
    rows = encode([Example("we")], tokenizer)
    with pytest.raises(CannotApplyError, match="has no padding token, which batches need"):
        Collator(tokenizer)([rows[0]])
