import json
import pickle

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
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


CAPTIONS = [("a.png", "A."), ("images/b.png", "Ä b.")]
TEXTS = [("a", "b", "c"), ("d", "e", "")]


def write(path, records):
    """Records in the format that the suffix names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=2)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    else:
        path.write_text(json.dumps(records), "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("text", ["text", "txt", "caption"])
def test_captions_in_every_format(tmp_path, suffix, text):
    records = [{"image": image, text: f" {caption}\n", "other": 1} for image, caption in CAPTIONS]
    pairs = CaptionPairs(write(tmp_path / f"captions{suffix}", records))
    assert [(row.positive.parts[0].source, row.query.text) for row in pairs] == [(tmp_path / image, text) for image, text in CAPTIONS]
    assert pairs[-1].query.id == "caption:1:query"
    with pytest.raises(IndexError):
        pairs[2]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("names", [("sent0", "sent1", "hard_neg"), ("query", "positive", "hard_negative")])
def test_text_pairs_in_every_format(tmp_path, suffix, names):
    records = [dict(zip(names, (one, two, three or None), strict=True)) for one, two, three in TEXTS]
    pairs = TextPairs(write(tmp_path / f"pairs{suffix}", records))
    assert [(row.query.text, row.positive.text, row.negatives[0].text if row.negatives else "") for row in pairs] == TEXTS


def test_cc3m_with_the_paths_of_another_machine(tmp_path):
    anno = {
        "GCC_1": {"h5v": "/data/of/others/cc3m/images/GCC_1.jpg", "h5a": "none.hdf5", "text": "", "instruct_ans": ["a sale . "]},
        "GCC_2": {"h5v": "pictures/GCC_2.jpg", "text": "", "instruct_ans": "a boat"},
    }
    pairs = CaptionPairs(write(tmp_path / "train_anno.json", anno))
    assert [(str(row.positive.parts[0].source.relative_to(tmp_path)), row.query.text) for row in pairs] == [
        ("images/GCC_1.jpg", "a sale ."),
        ("pictures/GCC_2.jpg", "a boat"),
    ]


def test_json_lines_under_the_name_of_json(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"image": "a.png", "text": "a"}\n{"image": "b.png", "text": "b"}\n')
    assert [row.query.text for row in CaptionPairs(path)] == ["a", "b"]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_many_rows_in_any_order_and_in_another_process(tmp_path, suffix):
    count = 20_000  # more than are copied at once
    path = write(tmp_path / f"pairs{suffix}", [{"query": f"q{row}", "positive": f"p{row}"} for row in range(count)])
    pairs = TextPairs(path)
    assert len(pairs) == count
    for row in (0, 8191, 8192, 16384, count - 1):
        assert (pairs[row].query.text, pairs[row].positive.text) == (f"q{row}", f"p{row}")
    assert pickle.loads(pickle.dumps(pairs))[8192].query.text == "q8192"


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_file_without_rows(tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".json":
        path.write_text("[]")
    else:
        pq.write_table(pa.table({"query": pa.array([], pa.string()), "positive": pa.array([], pa.string())}), path)
    assert len(TextPairs(path)) == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.json", [{"image": "a.png", "text": "a"}, {"image": "a.png"}], r"c\.json: row 2: text must be a non-empty string"),
        (
            "c.parquet",
            [{"image": "a.png", "text": "a"}, {"image": "../a.png", "text": "b"}],
            r"c\.parquet: row 2: image '../a.png' leads out",
        ),
        ("c.parquet", [{"image": {"bytes": b"1"}, "text": "a"}], r"row 1: image must be a non-empty string, the path of an image"),
        ("c.parquet", [{"picture": "a.png"}], r"has none of the columns image, .*; it has picture"),
        ("c.json", [7], r"row 1: an object is expected, not int"),
        ("c.json", {"GCC": {"h5v": "a.jpg", "instruct_ans": []}}, r"row 1: instruct_ans must be"),
        ("c.json", 7, r"a list of records is expected"),
        ("c.txt", [], r"read from \.jsonl, \.json and \.parquet files"),
    ],
)
def test_captions_in_other_formats_name_the_bad_row(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words) as error:
        CaptionPairs(write(tmp_path / name, content))
    assert "\n" not in str(error.value)


def test_text_pairs_in_other_formats_name_the_bad_row(tmp_path):
    with pytest.raises(DataError, match=r"p\.jsonl:2: query and positive must be non-empty strings"):
        TextPairs(write(tmp_path / "p.jsonl", [{"query": "a", "positive": "b"}, {"query": "a"}]))
    with pytest.raises(DataError, match=r"row 1: hard_neg must be a string or null, not list"):
        TextPairs(write(tmp_path / "p.parquet", [{"sent0": "a", "sent1": "b", "hard_neg": ["c"]}]))


def test_damaged_files(tmp_path):
    for name in ("p.json", "p.parquet"):
        (tmp_path / name).write_text("not at all")
        with pytest.raises(DataError, match=r"is not (valid JSON|a readable Parquet file)"):
            TextPairs(tmp_path / name)
        with pytest.raises(DataError, match="it does not exist"):
            TextPairs(tmp_path / f"no-{name}")
