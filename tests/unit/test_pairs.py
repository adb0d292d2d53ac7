import json

import PIL.Image
import pytest

from umr.data.pairs import CaptionPairs, TextPairs
from umr.errors import DataError


def csv_file(tmp_path, text):
    path = tmp_path / "nli.csv"
    path.write_text(text, "utf-8", newline="")
    return path


def test_text_pairs_with_quotes_commas_and_line_breaks(tmp_path):
    path = csv_file(tmp_path, 'sent0,sent1,hard_neg\n"A man, old.",Somebody is there.,"No ""one""\nis there."\nTwo.,Zwei.,\n')
    pairs = TextPairs(path)
    assert len(pairs) == 2
    first = pairs[0]
    assert (first.query.text, first.positive.text, first.negatives[0].text) == ("A man, old.", "Somebody is there.", 'No "one"\nis there.')
    assert (first.query.id, first.positive.id, first.negatives[0].id) == ("nli:0:query", "nli:0:positive", "nli:0:negative")
    assert pairs[-1].negatives == ()
    assert [row.query.text for row in pairs] == ["A man, old.", "Two."]
    with pytest.raises(IndexError):
        pairs[2]


def test_text_pairs_without_hard_negatives(tmp_path):
    assert TextPairs(csv_file(tmp_path, "sent0,sent1\na,b\n"))[0].negatives == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", r"nli\.csv:1: has no column sent0 and no column sent1"),
        ("", r"nli\.csv:1: has no column"),
        ("sent0,sent1,hard_neg\na,b,c\n,b,c\n", r"nli\.csv:3: sent0 and sent1 must not be empty"),
        ("sent0,sent1,hard_neg\na,b\n", r"nli\.csv:2: needs 3 columns"),
        ("sent0,sent1\na,b,c\n", r"nli\.csv:2: needs 2 columns"),
        ('sent0,sent1\na,"b\n', r"nli\.csv:2: is not valid CSV"),
    ],
)
def test_text_pairs_name_the_bad_line(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        TextPairs(csv_file(tmp_path, text))


def test_text_pairs_from_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        TextPairs(tmp_path / "no.csv")


def captions_file(tmp_path, *records):
    path = tmp_path / "captions.jsonl"
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records), "utf-8")
    return path


def test_captions_look_for_images_beside_the_file(tmp_path):
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (4, 4), "red").save(tmp_path / "images" / "0.png")
    pairs = CaptionPairs(captions_file(tmp_path, {"image": "images/0.png", "text": " A red square. "}, {"image": "b.png", "text": "B"}))
    assert len(pairs) == 2
    row = pairs[0]
    assert row.query.text == "A red square."
    assert row.positive.parts[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert (row.query.id, row.positive.id, row.negatives) == ("caption:0:query", "caption:0:positive", ())
    assert [row.query.id for row in pairs] == ["caption:0:query", "caption:1:query"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"image": "a.png"', "is not valid JSON"),
        ({"image": "a.png"}, "text must be"),
        ({"text": "a"}, "image must be"),
        ({"image": "../a.png", "text": "a"}, "leads out"),
        ({"image": "/etc/a.png", "text": "a"}, "leads out"),
    ],
)
def test_captions_name_the_bad_line(tmp_path, record, words):
    with pytest.raises(DataError, match=rf"captions\.jsonl:2: .*{words}"):
        CaptionPairs(captions_file(tmp_path, {"image": "a.png", "text": "a"}, record))
