"""Reading text-retrieval sets: BEIR's and MTEB's layout, any ids, and one clear error for every bad line."""

import json
import pickle
from pathlib import Path

import pytest

from umr.cli import main
from umr.data.benchmark import open_benchmark, searched_pools
from umr.data.ids import HASHED, pack
from umr.data.mbeir import MBeir
from umr.data.text_judgements import read_judgements
from umr.data.text_retrieval import INSTRUCTION, TextRetrieval
from umr.errors import DataError
from unit.text_set import add_line, write_set


@pytest.fixture(params=[False, True], ids=["beir", "mteb"])
def tree(request, tmp_path) -> TextRetrieval:
    return TextRetrieval(write_set(tmp_path / "things", mteb=request.param))


def test_both_layouts_say_the_same(tree):
    (setting,) = tree.settings("test")
    assert setting.name == "things_task10" and setting.modalities == ("text", "text")
    assert tree.settings("nowhere") == ()
    queries = tree.queries(setting, "test")
    assert queries.ids == ["q/8", "q/9", "q/10", "q/11"]
    assert [query.qid for query in queries] == queries.ids
    first = queries[0]
    assert first.item.parts[0].text == "blue circle n8" and first.item.id == "q/8" and first.target_modality == "text"
    assert first.instructions == (INSTRUCTION,)
    assert tree.qrels(setting, "test")["q/8"] == {"doc 8": 2, "doc 0": 1, "doc 16": 1}
    assert tree.qrels(setting, "test")["q/9"] == {"doc 9": 2}
    assert tree.judgements("test").irrelevant["q/9"] == ["doc 1", "doc 17"]


def test_training_queries_have_right_and_wrong_answers(tree):
    queries = tree.train_queries([tree.setting])
    assert len(queries) == 8 and queries[:2] == [queries[0], queries[1]] and queries[-1].qid == "q/7"
    assert queries.get("q/1").positives == ("doc 1",) and queries.get("q/1").negatives == ("doc 9", "doc 17")
    assert set(queries.get("q/2").positives) == {"doc 2", "doc 10", "doc 18"} and queries.get("q/2").negatives == ()
    with pytest.raises(IndexError):
        queries[8]


def test_documents_are_title_and_text_and_keep_their_ids(tree):
    pool = tree.train_pool()
    assert pool is tree.pool(tree.setting, "test") and pool is tree.global_pool("test")
    assert len(pool) == 24 and pool.ids[3] == "doc 3" and "doc 3" in pool and "doc 99" not in pool
    assert pool.item("doc 3").parts[0].text == "About moon a red moon n3" and pool.item("doc 3").id == "doc 3"
    assert [item.id for item in pool.items(22)] == ["doc 22", "doc 23"]
    assert pool.find(["doc 5", "x"]).tolist() == [5, -1] and pool.modality("doc 1") == "text"


def test_val_is_what_beir_calls_dev(tree):
    assert tree.queries(tree.setting, "val").ids == ["q/11"]
    assert tree.qrels_path(tree.setting, "val").stem == "dev"


def test_instructions_come_from_the_folder_or_from_whoever_opens_it(tree):
    (tree.root / "instructions.txt").write_text("Find a thing.\n\n  Which thing is it? \n")
    assert TextRetrieval(tree.root).train_queries()[0].instructions == ("Find a thing.", "Which thing is it?")
    assert TextRetrieval(tree.root, wordings=("Mine.",)).train_queries()[0].instructions == ("Mine.",)
    (tree.root / "instructions.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no instruction"):
        _ = TextRetrieval(tree.root).wordings


def test_the_fingerprint_is_of_everything_that_is_read(tree):
    marks = {tree.fingerprint("train"), tree.fingerprint("test")}
    assert tree.fingerprint("train") == TextRetrieval(tree.root).fingerprint("train")
    (tree.root / "instructions.txt").write_text("Find a thing.\n")
    marks.add(tree.fingerprint("train"))
    add_line(tree.root / "corpus.jsonl", {"_id": "more", "text": "more"})
    assert len(marks | {tree.fingerprint("train")}) == 4


def test_opening_goes_by_what_is_in_the_folder(tree, tmp_path):
    assert isinstance(open_benchmark(tree.root), TextRetrieval)
    (tmp_path / "m" / "query").mkdir(parents=True)
    mbeir = open_benchmark(tmp_path / "m")
    assert isinstance(mbeir, MBeir)
    with pytest.raises(DataError, match=r"not an M-BEIR folder .* nor a text-retrieval set"):
        open_benchmark(tmp_path)
    assert searched_pools(tree, ["local", "global"]) == ("local",) and searched_pools(tree, ["global"]) == ("local",)
    assert searched_pools(mbeir, ["global", "local"]) == ("global", "local")


def test_ids_may_look_like_those_of_mbeir(tmp_path):
    root = write_set(tmp_path / "s")
    for path in root.rglob("*.*"):
        path.write_text(path.read_text().replace("doc ", "0:").replace("q/", "7:"))
    tree = TextRetrieval(root)
    assert not pack("0:3") & HASHED and pack("doc 3") & HASHED
    assert tree.train_pool().item("0:3").id == "0:3" and tree.queries("s_task10", "test").ids == ["7:8", "7:9", "7:10", "7:11"]


def test_newer_mteb_sets_call_ids_id_and_leave_titles_out(tmp_path):
    root = write_set(tmp_path / "s", mteb=True)
    for name in ("corpus", "queries"):
        records = [json.loads(line) for line in (root / f"{name}.jsonl").read_text().splitlines()]
        renamed = [{"id": one.pop("_id"), **{key: value for key, value in one.items() if key != "title"}} for one in records]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in renamed))
    tree = TextRetrieval(root)
    assert tree.train_pool().item("doc 3").parts[0].text == "a red moon n3"
    assert tree.train_queries()[0].qid == "q/0"


def test_a_table_without_a_header_loses_nothing_and_a_document_without_text_is_a_space(tmp_path):
    root = write_set(tmp_path / "s")
    path = root / "qrels" / "test.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\r\n")
    add_line(root / "corpus.jsonl", {"_id": "empty", "title": None, "text": ""})
    tree = TextRetrieval(root)
    assert tree.queries(tree.setting, "test").ids[0] == "q/8"
    assert tree.train_pool().item("empty").parts[0].text == " "


def test_readers_can_be_sent_to_other_processes(tree):
    queries = pickle.loads(pickle.dumps(tree.train_queries()))
    assert queries[1] == tree.train_queries()[1]
    assert pickle.loads(pickle.dumps(tree.train_pool())).item("doc 2") == tree.train_pool().item("doc 2")


BAD = [
    ("corpus.jsonl", "{", r"corpus.jsonl:25: is not valid JSON"),
    ("corpus.jsonl", {"_id": "x"}, r"corpus.jsonl:25: text must be a string, not None"),
    ("corpus.jsonl", {"_id": "x", "text": "t", "title": 3}, r"corpus.jsonl:25: title must be a string or null, not int"),
    ("corpus.jsonl", {"_id": 5, "text": "t"}, r"corpus.jsonl:25: must have a non-empty string '_id', not 5"),
    ("corpus.jsonl", {"_id": "doc 3", "text": "t"}, r"corpus.jsonl:25: _id 'doc 3' was already used in line 4"),
    ("queries.jsonl", {"_id": "x", "text": " "}, r"queries.jsonl:13: text must be a non-empty string, not ' '"),
    ("qrels/train.tsv", "q/1\tdoc 1", r"train.tsv:26: needs 3 columns separated by tabs .*, has 2"),
    ("qrels/train.tsv", "q/1\tdoc 1\thigh", r"train.tsv:26: the grade must be a whole number, not 'high'"),
    ("qrels/train.tsv", "q/1\tdoc 1\t0.5", r"train.tsv:26: the grade must be a whole number, not '0.5'"),
    ("qrels/train.tsv", "\tdoc 1\t1", r"train.tsv:26: ids must be non-empty strings, not '' and 'doc 1'"),
    ("qrels/train.tsv", "q/77\tdoc 1\t1", r"train.tsv:26: query 'q/77' is not in .*queries.jsonl"),
    ("qrels/train.tsv", "q/1\tdoc 77\t1", r"train.tsv:26: document 'doc 77' is not in .*corpus.jsonl"),
]


@pytest.mark.parametrize(("file", "line", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_one_error_with_its_place(tmp_path, file, line, message):
    root = write_set(tmp_path / "s")
    add_line(root / file, line)
    with pytest.raises(DataError, match=message):
        TextRetrieval(root).train_queries()
    tree = TextRetrieval(root, on_error="skip")
    assert len(tree.train_queries()) == 8 and len(tree.train_pool()) == 24
    assert len(tree.problems) == 1
    report = tree.check("train")
    assert not report.ok and report.counts["queries"] == 8 and report.counts["candidates"] == 24


@pytest.mark.parametrize("line", ["[]", "{", '{"query-id": "q/1"}', '{"query-id": "q/1", "corpus-id": 3, "score": 1}'])
def test_bad_lines_of_mteb(tmp_path, line):
    root = write_set(tmp_path / "s", mteb=True)
    add_line(root / "qrels" / "train.jsonl", line)
    with pytest.raises(DataError, match=r"train.jsonl:25: "):
        read_judgements(root / "qrels" / "train.jsonl")


def test_what_is_missing(tmp_path):
    root = write_set(tmp_path / "s")
    with pytest.raises(DataError, match="has no setting 'other_task10'; its only one is s_task10"):
        TextRetrieval(root).queries("other_task10", "test")
    with pytest.raises(DataError, match=r"qrels/nowhere.tsv: cannot be read"):
        TextRetrieval(root).queries("s_task10", "nowhere")
    with pytest.raises(DataError, match="no queries of split 'nowhere'"):
        TextRetrieval(root).check("nowhere")
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(DataError, match=r"test.tsv: holds no judgements"):
        TextRetrieval(root).queries("s_task10", "test")
    (root / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"it has no file 'queries.jsonl'"):
        TextRetrieval(root)
    with pytest.raises(DataError, match="on_error must be"):
        TextRetrieval(Path(root), on_error="ignore")


def test_evaluation_takes_judgements_of_documents_that_the_corpus_lacks(tmp_path):
    root = write_set(tmp_path / "s")
    add_line(root / "qrels" / "test.tsv", "q/8\tgone\t2")
    tree = TextRetrieval(root)
    assert len(tree.queries(tree.setting, "test")) == 4 and tree.qrels(tree.setting, "test")["q/8"]["gone"] == 2
    report = TextRetrieval(root, on_error="skip").check("test")
    assert [problem.kind for problem in report.problems] == ["unknown id"] and report.problems[0].line == 14


def test_umr_check_data_takes_it(tmp_path, capsys):
    root = write_set(tmp_path / "s")
    assert main(["check-data", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "nothing wrong" in shown and "24 candidates" in shown and "val:" in shown
    add_line(root / "qrels" / "dev.tsv", "q/99\tdoc 1\t1")
    assert main(["check-data", str(root), "--split", "val"]) == 1
    assert "query 'q/99' is not in" in " ".join(capsys.readouterr().out.split())
