from collections import Counter

import pytest

from umr.data.instructions import Instructions, choose
from umr.errors import DataError

HEADER = "query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2\tprompt_3\tprompt_4\n"


def written(tmp_path, text):
    path = tmp_path / "query_instructions.tsv"
    path.write_text(HEADER + text, "utf-8")
    return path


def test_found_by_dataset_and_modalities_normalised_without_empty_cells(tmp_path):
    text = 'text\timage\tMSCOCO\t9\tfind me an image\t"Show me."\t\t \r\nimage,text\ttext\tOVEN\t5\tWhat is it?\t\t\t\n\n'
    instructions = Instructions(written(tmp_path, text))
    assert len(instructions) == 2
    assert instructions.find(9, "text", "image") == ("Find me an image.", "Show me.")
    assert instructions.find(5, "image,text", "text") == ("What is it?",)
    with pytest.raises(DataError, match="no instruction for dataset 9, text -> text"):
        instructions.find(9, "text", "text")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text\timage\tMSCOCO\t9\n", "at least 5"),
        ("sound\timage\tMSCOCO\t9\tFind.\n", "unknown modality 'sound'"),
        ("text\tsmell\tMSCOCO\t9\tFind.\n", "unknown modality 'smell'"),
        ("text\timage\tMSCOCO\tnine\tFind.\n", "whole number"),
        ("text\timage\tMSCOCO\t9\t\t \n", "has no instruction"),
    ],
)
def test_malformed_line_is_named(tmp_path, text, words):
    with pytest.raises(DataError, match=r"query_instructions\.tsv:2: .*" + words):
        Instructions(written(tmp_path, text))


def test_same_search_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.tsv:3: .*already"):
        Instructions(written(tmp_path, "text\timage\tA\t9\tFind.\ntext\timage\tA\t9\tSeek.\n"))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Instructions(tmp_path / "no.tsv")


def test_choice_is_first_or_drawn_the_same_everywhere():
    wordings = ("a", "b", "c", "d")
    assert choose(wordings, "0:1") == "a"
    assert choose((), "0:1") is None
    assert choose((), "0:1", seed=3) is None
    assert [choose(wordings, f"0:{n}", seed=7, epoch=1) for n in range(8)] == ["a", "d", "a", "a", "b", "d", "a", "b"]
    drawn = Counter(choose(wordings, f"0:{n}", seed=7) for n in range(4000))
    assert min(drawn.values()) > 900
    differing = sum(choose(wordings, f"0:{n}", 7, 0) != choose(wordings, f"0:{n}", 7, 1) for n in range(1000))
    assert 700 < differing < 800
