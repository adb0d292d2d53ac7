"""Training data of text retrieval: positives by grade, no false negatives, mined negatives, triples, and mixing with M-BEIR."""

import json
import pickle

import numpy as np
import pytest

from pipeline import training_data
from umr.data.text_retrieval import INSTRUCTION, TextRetrieval
from umr.data.triples import Triples
from umr.errors import DataError, RecipeError
from umr.evaluation.own import own_rows
from umr.mining.mine import mine_with
from umr.mining.negatives import NegativeTable
from umr.mining.queries import training_data as data_of
from umr.mining.queries import training_groups
from umr.mining.recall import recall
from umr.mining.settings import MineSettings
from umr.mining.tables import AUDIT
from umr.progress import quiet
from umr.training import recipe as recipes
from umr.training.plan import Plan
from umr.training.sources import open_sources
from unit.mbeir_fixture import BagEncoder
from unit.text_set import add_line, write_set


@pytest.fixture(autouse=True)
def _silent():
    with quiet():
        yield


def opened(*sections, negatives=0, loss=None):
    training = {"batch_size": 2, "steps": 1, "learning_rate": 1, "seed": 3}
    loss = loss or {"negatives": negatives}
    return open_sources(
        recipes.parse({"name": "x", "model": {"path": "m"}, "data": list(sections), "loss": loss, "training": training}, "recipe")
    )


def texts(root, **more):
    return {"kind": "text_retrieval", "path": str(root), **more}


def test_a_positive_is_of_the_best_grade_and_no_judged_one_is_a_negative(tmp_path):
    (source,), weights, prints = opened(texts(write_set(tmp_path / "s"), weight=0.25), negatives=1)
    assert source.name == "s_task10" and len(source) == 8 and weights == [0.25] and list(prints) == [f"text_retrieval:{tmp_path / 's'}"]
    for epoch in range(6):
        even, odd = source.example(2, epoch), source.example(1, epoch)
        assert even.positive.id == "doc 2" and set(even.positives) == {"doc 2", "doc 10", "doc 18", "q/2"} and even.negatives == ()
        assert odd.positive.id == "doc 1" and odd.negatives[0].id in ("doc 9", "doc 17")
    assert {source.example(1, epoch).negatives[0].id for epoch in range(12)} == {"doc 9", "doc 17"}
    assert source.example(1, 4) == source.example(1, 4)
    assert even.instruction == INSTRUCTION and even.space == str(tmp_path / "s")
    assert even.positive.parts[0].text == "About star a blue star n2"


def test_the_instruction_is_a_setting(tmp_path):
    root = write_set(tmp_path / "s")
    (root / "instructions.txt").write_text("One.\nTwo.\n")
    (source,), _, _ = opened(texts(root))
    assert {source.example(0, epoch).instruction for epoch in range(12)} == {"One.", "Two."}
    assert opened(texts(root, instructions="first"))[0][0].example(0, 3).instruction == "One."
    assert opened(texts(root, instructions="none"))[0][0].example(0, 3).instruction is None
    assert opened(texts(root, instruction="Mine."))[0][0].example(0, 3).instruction == "Mine."
    with pytest.raises(RecipeError, match="instruction has no effect with instructions=none"):
        opened(texts(root, instruction="Mine.", instructions="none"))


def test_what_cannot_be_trained_on(tmp_path):
    root = write_set(tmp_path / "s")
    with pytest.raises(RecipeError, match="mined has no effect with loss"):
        opened(texts(root, mined="m"))
    with pytest.raises(RecipeError, match=r"data.0: unknown key 'data.0.negative'|unknown key"):
        opened(texts(root, negative=1))
    (root / "qrels" / "train.tsv").unlink()
    with pytest.raises(DataError, match=r"train.tsv: does not exist, so there are no training queries"):
        opened(texts(root))


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """A set in which a query is a document, a right answer has a copy, and what was mined from it."""
    root = write_set(tmp_path_factory.mktemp("mined") / "s")
    add_line(root / "corpus.jsonl", {"_id": "copy", "title": "About square", "text": "a green square n1"})
    add_line(root / "corpus.jsonl", {"_id": "q/3", "title": "", "text": "red moon n3"})
    with quiet():
        out = mine_with(BagEncoder(), TextRetrieval(root), root.parent / "out", MineSettings(depth=20, max_similarity=None, negatives=4))
    return root, out


def test_mining_drops_positives_by_id_and_content_and_the_query_itself(mined):
    import pyarrow.parquet as pq

    root, out = mined
    table, tree = NegativeTable(out), TextRetrieval(root)
    assert len(table) == 8 and table.data == data_of(tree)
    for query in tree.train_queries():
        found = table.of(query.qid)
        assert len(found) == 4 and not set(found) & {*query.positives, query.qid, "copy" if query.qid == "q/1" else ""}
    audit = pq.read_table(out / AUDIT).to_pylist()
    assert {row["setting"] for row in audit} == {"s_task10"} and {row["pool"] for row in audit} == {"local"}
    of_first = {row["did"]: row["reason"] for row in audit if row["qid"] == "q/1"}
    assert of_first["doc 1"] == "positive by id" and of_first["copy"] == "positive by content"
    assert not any(row["did"] == "q/3" for row in audit if row["qid"] == "q/3")
    assert len(of_first) == 20 and len({row["did"] for row in audit if row["qid"] == "q/3"}) == 20


def test_training_takes_mined_negatives_of_the_same_data(mined):
    root, out = mined
    (source,), _, prints = opened(texts(root, mined=str(out)), negatives=2)
    table = NegativeTable(out)
    example = source.example(2, 0)
    assert len(example.negatives) == 2 and {one.id for one in example.negatives} <= set(table.of("q/2"))
    assert [key.split(":")[0] for key in prints] == ["text_retrieval", "mined"]
    other = write_set(root.parent / "other")
    with pytest.raises(RecipeError, match="was mined from other data"):
        opened(texts(other, mined=str(out)), negatives=1)


def test_recall_of_any_split_leaves_the_query_out(mined):
    root, _ = mined
    tree = TextRetrieval(root)
    (found,) = recall(BagEncoder(), tree, root.parent / "out", depth=5)
    assert found.setting == "s_task10" and found.pool == "local" and found.run.rows_QK.shape == (8, 5)
    assert "q/3" not in found.run.rankings()["q/3"] and any("q/3" in dids for dids in found.run.rankings().values())
    (tested,) = recall(BagEncoder(), tree, root.parent / "out", split="test", depth=5)
    assert tested.run.qids == ("q/8", "q/9", "q/10", "q/11")
    (group,) = training_groups(tree)
    assert group.datasets is None and group.target == "text"
    assert own_rows(tree, ["q/2", "q/3"], tree.train_pool()).tolist() == [-1, 25]
    assert own_rows(tree, ["q/2"], tree.train_pool()) is None


def test_replay_is_a_weight_beside_m_beir(tmp_path):
    training_data.write_tree(tmp_path / "tree")
    root = write_set(tmp_path / "s")
    sources, weights, _ = opened({"kind": "mbeir", "path": str(tmp_path / "tree"), "settings": ["shapes_task0"]}, texts(root, weight=6.0))
    plan = Plan([len(one) for one in sources], weights, 64, steps=50, epochs=None, seed=0)
    share = plan.counts_SN.sum(axis=0) / plan.counts_SN.sum()
    assert share == pytest.approx(np.array([16, 48]) / 64, abs=0.02)


def test_a_reranker_learns_from_text_sets_too(tmp_path):
    root = write_set(tmp_path / "s")
    (source,), _, _ = opened(texts(root), loss={"kind": "rerank", "negatives": 1, "strangers": 2})
    strangers = [one.id for epoch in range(8) for one in source.example(2, epoch).strangers]
    assert strangers and not set(strangers) & {"doc 2", "doc 10", "doc 18"}


ROWS = [
    ("what is red", "a red moon", "a blue moon"),
    ("what is blue", "a blue moon", "a red moon"),
    ("what is green", "a green fish", "a cat"),
]


@pytest.fixture(params=["tsv", "jsonl", "lists"])
def triples(request, tmp_path):
    path = tmp_path / f"triples.{'tsv' if request.param == 'tsv' else 'jsonl'}"
    if request.param == "tsv":
        path.write_text("".join("\t".join(row) + "\r\n" for row in ROWS) + "\n")
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(("query", "positive", "negative"), row, strict=True))) + "\n" for row in ROWS))
    else:
        path.write_text("\n".join(json.dumps({"query": q, "pos": [p], "neg": [n]}) for q, p, n in ROWS))
    return path


def test_triples_of_any_layout(triples):
    rows = Triples(triples)
    assert len(rows) == 3 and rows.paths == (triples,)
    read = [
        (row.query.parts[0].text, row.positives[0].parts[0].text, row.negatives[0].parts[0].text) for row in (rows[n] for n in range(3))
    ]
    assert read == ROWS
    assert rows[0].positives[0].id == rows[1].negatives[0].id, "equal texts are known as equal"
    assert pickle.loads(pickle.dumps(rows))[1] == rows[1]
    with pytest.raises(IndexError):
        rows[3]


def test_an_example_of_triples(triples):
    (source,), weights, prints = opened({"kind": "triples", "path": str(triples), "weight": 2.0}, negatives=3)
    assert weights == [2.0] and len(prints) == 1 and len(source) == 3
    example = source.example(0, 0)
    assert example.instruction == INSTRUCTION and example.positives == (example.positive.id,)
    assert [one.parts[0].text for one in example.negatives] == ["a blue moon"]
    (plain,), _, _ = opened({"kind": "triples", "path": str(triples), "instruction": None})
    assert plain.example(0, 0).instruction is None and plain.example(0, 0).negatives == ()


def test_triples_of_ids(tmp_path):
    root = write_set(tmp_path / "s")
    path = tmp_path / "ids.tsv"
    path.write_text("q/1\tdoc 1\tdoc 9\tdoc 17\nq/2\tdoc 2\tdoc 3\n")
    rows = Triples(path, root)
    assert rows[0].query.parts[0].text == "green square n1" and [one.id for one in rows[0].negatives] == ["doc 9", "doc 17"]
    (source,), _, _ = opened({"kind": "triples", "path": str(path), "ids_in": str(root)}, negatives=1)
    assert source.space == str(root) and source.example(0, 0).positive.parts[0].text == "About square a green square n1"
    assert {source.example(0, epoch).negatives[0].id for epoch in range(12)} == {"doc 9", "doc 17"}
    for line, message in (("q/99\tdoc 1\tdoc 2", "query 'q/99' is not in"), ("q/1\tdoc 1\tdoc 99", "passage 'doc 99' is not in")):
        path.write_text(f"q/1\tdoc 1\tdoc 9\n{line}\n")
        with pytest.raises(DataError, match=f"ids.tsv:2: {message}"):
            Triples(path, root)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("t.tsv", "a\tb", "t.tsv:2: needs query, right passage and wrong passages"),
        ("t.tsv", "a\t \tc", "t.tsv:2: column 2 is empty"),
        ("t.jsonl", "{", "t.jsonl:2: is not valid JSON"),
        ("t.jsonl", "[]", "t.jsonl:2: must hold a JSON object, not list"),
        ("t.jsonl", '{"query": " ", "positive": "x"}', "t.jsonl:2: query must be a non-empty string"),
        ("t.jsonl", '{"query": "q", "positive": []}', "t.jsonl:2: positive must hold a text"),
        ("t.jsonl", '{"query": "q", "pos": ["a", ""]}', "t.jsonl:2: pos must be a non-empty string or a list of them"),
        ("t.csv", "x", "t.csv: triples are read from .tsv and .jsonl files"),
    ],
)
def test_bad_triples_are_one_error_with_their_place(tmp_path, name, line, message):
    path = tmp_path / name
    path.write_text(("a\tb\tc\n" if name == "t.tsv" else '{"query": "q", "positive": "p"}\n') + line + "\n")
    with pytest.raises(DataError, match=message):
        Triples(path)


def test_no_triples(tmp_path):
    (tmp_path / "t.tsv").write_text("\n")
    with pytest.raises(DataError, match="holds no triples"):
        Triples(tmp_path / "t.tsv")
    with pytest.raises(DataError, match="cannot be read"):
        Triples(tmp_path / "u.tsv")
    (tmp_path / "t.tsv").write_bytes(b"\xff\tb\tc\n")
    with pytest.raises(DataError, match=r"t.tsv:1: is not valid UTF-8 \(byte 1\)"):
        Triples(tmp_path / "t.tsv")
