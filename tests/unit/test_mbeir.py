import json
import pickle

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.data import MBeir, Setting, normalise_text
from umr.data.fingerprint import fingerprint
from umr.data.qrels import read_qrels
from umr.errors import DataError, MediaError

HEADER = "query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2\n"
INSTRUCTIONS = (
    "text\timage\tMSCOCO\t9\tfind me an image\tShow me an image\n"
    "image\ttext\tMSCOCO\t9\tfind a caption\t\n"
    "image,text\timage\tCIRR\t8\tchange it\t\n"
    "text\tvideo\tClips\t12\tfind a clip\t\n"
)


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records), "utf-8")


def query(qid, modality, text=None, image=None, positives=(), task=None, **more):
    record = {"qid": qid, "query_txt": text, "query_img_path": image, "query_modality": modality, "query_src_content": None}
    record |= {"pos_cand_list": list(positives), "neg_cand_list": []} | more
    return record if task is None else record | {"task_id": task}


def candidate(did, modality, text=None, image=None, **more):
    return {"did": did, "txt": text, "img_path": image, "modality": modality, "src_content": None} | more


@pytest.fixture
def tree(tmp_path):
    """A small tree named and laid out as the real one, MSCOCO's pools for each split included."""
    for i in range(4):
        path = tmp_path / "mbeir_images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.new("RGB", (4, 4), (60 * i, 0, 0)).save(path)
    images = [f"mbeir_images/{i}.png" for i in range(4)]
    local, whole = tmp_path / "cand_pool" / "local", tmp_path / "cand_pool" / "global"
    coco = [candidate(f"9:{i}", "image", image=images[i]) for i in range(3)]
    captions = [candidate("9:10", "text", "a dog"), candidate("9:11", "text", '"A cat?"')]
    cirr = [candidate("8:1", "image", image=images[3])]
    clips = [candidate("12:1", "video", video_path="clips/1.mp4")]
    lines(local / "mbeir_mscoco_task0_test_cand_pool.jsonl", coco)
    lines(local / "mbeir_mscoco_task0_val_cand_pool.jsonl", coco[:1])
    lines(local / "mbeir_mscoco_task3_test_cand_pool.jsonl", captions)
    lines(local / "mbeir_cirr_task7_cand_pool.jsonl", cirr)
    lines(local / "mbeir_clips_task9_cand_pool.jsonl", clips)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "1.mp4").write_bytes(b"not decoded here")
    for split in ("test", "train"):
        lines(whole / f"mbeir_union_{split}_cand_pool.jsonl", coco + captions + cirr + clips)
    q0 = [query("9:1", "text", "a dog", positives=["9:0"], task=0), query("9:2", "text", "a cat", positives=[{"did": "9:1"}], task=0)]
    q3 = [query("9:3", "image", "ignored", images[0], ["9:10"], 3)]
    q7 = [query("8:4", "image,text", 'make it "blue"', images[1], ["8:1"], 7)]
    q9 = [query("12:5", "text", "it moves", positives=["12:1"])]
    test = {"mscoco_task0": q0, "mscoco_task3": q3, "cirr_task7": q7, "clips_task9": q9}
    for name, queries in test.items():
        lines(tmp_path / "query" / "test" / f"mbeir_{name}_test.jsonl", queries)
        rows = [f"{record['qid']} 0 {first(record)} 1 {name[-1]}" for record in queries]
        lines(tmp_path / "qrels" / "test" / f"mbeir_{name}_test_qrels.txt", rows)
    lines(tmp_path / "query" / "val" / "mbeir_mscoco_task0_val.jsonl", q0[:1])
    lines(tmp_path / "query" / "train" / "mbeir_mscoco_train.jsonl", [*q0, *q3])
    lines(tmp_path / "query" / "train" / "mbeir_cirr_train.jsonl", q7)
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "query_instructions.tsv").write_text(HEADER + INSTRUCTIONS)
    return tmp_path


def first(record):
    positive = record["pos_cand_list"][0]
    return positive["did"] if isinstance(positive, dict) else positive


def append(path, record):
    with path.open("a") as file:
        file.write((record if isinstance(record, str) else json.dumps(record)) + "\n")


# --- text


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise_text(normalise_text(text)) == normalise_text(text)


@given(st.text(alphabet=' "\r\nab.?ß'))
def test_normalising_quotes_and_blanks_twice_changes_nothing(text):
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert once == "" or (once[-1] in ".?!" and "\r" not in once)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' "a dog" ', "A dog."),
        ("who?", "Who?"),
        ("go!", "Go!"),
        ("x.", "X."),
        ("a\r\nb", "A\nb."),
        ("", ""),
        ('""', ""),
        (None, ""),
        ('" spaced "', "Spaced."),
        ('it\'s "so" nice', 'It\'s "so" nice.'),
    ],
)
def test_normalised_text(text, expected):
    assert normalise_text(text) == expected


# --- the tree


def test_settings_come_by_task_and_in_the_published_order(tree):
    names = [setting.name for setting in MBeir(tree).settings("test")]
    assert names == ["mscoco_task0", "mscoco_task3", "cirr_task7", "clips_task9"]
    assert MBeir(tree).settings("train") == (Setting("mscoco", None), Setting("cirr", None))
    assert MBeir(tree).settings("dev") == ()
    assert Setting.of("a_b_task8") == Setting("a_b", 8)
    assert Setting.of("mscoco_task0").modalities == ("text", "image")
    for name in ("mscoco_task5", "mscoco_task77"):
        with pytest.raises(DataError, match="names no M-BEIR setting"):
            Setting.of(name)


def test_queries_hold_item_instructions_and_positives_in_both_notations(tree):
    queries = MBeir(tree).queries("mscoco_task0", "test")
    assert len(queries) == 2
    assert queries.ids == ["9:1", "9:2"]
    dog, cat = queries
    assert dog.item.text == "A dog."
    assert dog.item.id == dog.qid == "9:1"
    assert dog.instructions == ("Find me an image.", "Show me an image.")
    assert (dog.positives, cat.positives) == (("9:0",), ("9:1",))
    assert (dog.task_id, dog.target_modality) == (0, "image")
    assert queries.get("9:2") == cat
    assert queries[-1] == cat
    assert queries[:1] == [dog]
    with pytest.raises(DataError, match="no query '9:7'"):
        queries.get("9:7")
    with pytest.raises(IndexError):
        queries[2]


def test_image_only_query_keeps_only_its_image(tree):
    (found,) = MBeir(tree).queries("mscoco_task3", "test")
    assert found.item.modality == "image"
    assert found.item.parts[0].open().size == (4, 4)
    (changed,) = MBeir(tree).queries("cirr_task7", "test")
    assert changed.item.modality == "image,text"
    assert changed.item.text == 'Make it "blue.'


def test_task_id_may_be_left_to_the_file_name(tree):
    (clip,) = MBeir(tree).queries("clips_task9", "test")
    assert (clip.task_id, clip.target_modality, clip.instructions) == (9, "video", ("Find a clip.",))


def test_pools_are_found_under_both_namings(tree):
    reader = MBeir(tree)
    assert len(reader.pool("mscoco_task0", "test")) == 3
    assert len(reader.pool("mscoco_task0", "val")) == 1
    assert reader.pool("cirr_task7", "test") is reader.pool("cirr_task7", "val")
    assert len(reader.global_pool("test")) == 7
    with pytest.raises(DataError, match=r"mbeir_webqa_task1_cand_pool\.jsonl: does not exist"):
        reader.pool("webqa_task1", "test")


def test_pool_gives_items_in_file_order(tree):
    pool = MBeir(tree).global_pool("test")
    assert list(pool.ids) == ["9:0", "9:1", "9:2", "9:10", "9:11", "8:1", "12:1"]
    assert [item.id for item in pool.items(2, 5)] == ["9:2", "9:10", "9:11"]
    assert [item.id for item in pool.items()] == list(pool.ids)
    assert pool.item("9:10").text == "A dog."
    assert pool.item("9:11").text == "A cat?"
    assert pool.item("9:2").parts[0].open().getpixel((0, 0)) == (120, 0, 0)
    assert [pool.modality(did) for did in ("9:0", "9:10", "12:1")] == ["image", "text", "video"]
    assert pool.item("12:1").modality == "video"
    assert "8:1" in pool
    assert pool.find(["8:1", "8:2"]).tolist() == [5, -1]
    with pytest.raises(DataError, match="'8:2'"):
        pool.item("8:2")


def test_training_queries_come_from_the_union_file_or_from_all(tree):
    assert MBeir(tree).train_queries().ids == ["9:1", "9:2", "9:3", "8:4"]
    assert MBeir(tree).train_queries(["cirr"]).ids == ["8:4"]
    assert [q.task_id for q in MBeir(tree).train_queries()] == [0, 0, 3, 7]
    union = tree / "query" / "union_train" / "mbeir_union_up_train.jsonl"
    lines(union, [query("9:1", "text", "a dog", positives=["9:0"])] * 3)
    queries = MBeir(tree).train_queries()
    assert queries.ids == ["9:1"] * 3
    assert queries[2].task_id == 0  # told by the modality of its positive


def test_queries_and_pools_survive_pickling(tree):
    reader = MBeir(tree)
    queries, pool = reader.queries("mscoco_task0", "test"), reader.global_pool("test")
    assert list(pickle.loads(pickle.dumps(queries))) == list(queries)
    assert pickle.loads(pickle.dumps(pool)).item("9:10") == pool.item("9:10")


def test_tree_without_instructions_has_none(tree):
    (tree / "instructions" / "query_instructions.tsv").unlink()
    assert MBeir(tree).queries("mscoco_task0", "test")[0].instructions == ()


def test_missing_instruction_is_named(tree):
    path = tree / "instructions" / "query_instructions.tsv"
    path.write_text(HEADER + INSTRUCTIONS.splitlines()[1] + "\n")
    with pytest.raises(DataError, match="dataset 9, text -> image"):
        MBeir(tree).queries("mscoco_task0", "test")[0]


def test_folder_that_is_no_benchmark(tmp_path):
    with pytest.raises(DataError, match="not an M-BEIR folder"):
        MBeir(tmp_path)
    (tmp_path / "query").mkdir()
    with pytest.raises(DataError, match="on_error must be"):
        MBeir(tmp_path, "ignore")
    with pytest.raises(DataError, match="no training queries"):
        MBeir(tmp_path).train_queries()


# --- judgements


def test_qrels_of_four_and_five_columns(tmp_path):
    path = tmp_path / "a_qrels.txt"
    path.write_text("9:1 0 9:5 1 0\n9:1 0 9:6 2\n\n9:1\t0\t9:7\t0\t0\n9:2 0 9:8 0\n")
    assert read_qrels(path).relevant == {"9:1": {"9:5": 1, "9:6": 2}, "9:2": {}}


@pytest.mark.parametrize(("line", "words"), [("9:1 0 9:5", "needs 4 or 5 columns"), ("9:1 0 9:5 yes", "whole number")])
def test_malformed_qrels(tmp_path, line, words):
    path = tmp_path / "a_qrels.txt"
    path.write_text(f"9:1 0 9:5 1 0\n{line}\n9:2 0 9:5 1\n")
    with pytest.raises(DataError, match=rf"a_qrels\.txt:2: .*{words}"):
        read_qrels(path)
    judgements = read_qrels(path, "skip")
    assert set(judgements.relevant) == {"9:1", "9:2"}
    assert [problem.line for problem in judgements.problems] == [2]
    with pytest.raises(DataError, match="cannot be read"):
        read_qrels(tmp_path / "no.txt")


# --- what is wrong


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"did": "9:99", "txt"', "is not valid JSON"),
        (candidate("9:99", "smell"), "modality must be"),
        (candidate("9:99", "text", ' "" '), "txt is empty"),
        (candidate("9:99", "text", 5), "txt must be a string"),
        (candidate("9:99", "image"), "img_path is empty"),
        (candidate("9:99", "video"), "video_path is empty"),
        (candidate("9:99", "image", image="../outside.png"), "leads out of"),
        (candidate("9:99", "image", image="a/../../outside.png"), "leads out of"),
        (candidate("9:99", "image", image="/etc/passwd"), "leads out of"),
        (candidate("9:99", "image", image="a\\..\\..\\b.png"), "leads out of"),
        (candidate("9:0", "text", "again"), "was already used in line 1"),
    ],
)
def test_malformed_candidate_is_named_or_left_out(tree, record, words):
    append(tree / "cand_pool" / "local" / "mbeir_mscoco_task0_test_cand_pool.jsonl", record)
    with pytest.raises(DataError, match=r"mbeir_mscoco_task0_test_cand_pool\.jsonl:4: ") as caught:
        MBeir(tree).pool("mscoco_task0", "test")
    assert words in str(caught.value)
    reader = MBeir(tree, "skip")
    assert len(reader.pool("mscoco_task0", "test")) == 3
    assert [problem.line for problem in reader.problems] == [4]


def test_names_with_two_dots_inside_are_no_way_out(tree):
    PIL.Image.new("RGB", (2, 2)).save(tree / "mbeir_images" / "a..b.png")
    append(tree / "cand_pool" / "local" / "mbeir_cirr_task7_cand_pool.jsonl", candidate("8:9", "image", image="mbeir_images/a..b.png"))
    assert MBeir(tree).pool("cirr_task7", "test").item("8:9").parts[0].open().size == (2, 2)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (query("9:9", "video", "a"), "query_modality must be"),
        (query("9:9", "text", "a", task=5), "unknown task_id 5"),
        (query("9:9", "text", "a", task=[0]), "unknown task_id"),
        (query("9:9", "text", "a", task=3), "task_id 3 searches with image"),
        (query("9:9", "text"), "query_txt is empty"),
        (query("9:9", "image,text", "a"), "query_img_path is empty"),
        (query("9:9", "text", "a") | {"pos_cand_list": "9:0"}, "pos_cand_list must be"),
        (query("9:9", "text", "a", positives=[7]), "pos_cand_list must be"),
        (query("9:9", "text", "a") | {"neg_cand_list": [{"id": "9:0"}]}, "neg_cand_list must be"),
    ],
)
def test_malformed_query_is_named_or_left_out(tree, record, words):
    append(tree / "query" / "test" / "mbeir_mscoco_task0_test.jsonl", record)
    with pytest.raises(DataError, match=r"mbeir_mscoco_task0_test\.jsonl:3: ") as caught:
        MBeir(tree).queries("mscoco_task0", "test")
    assert words in str(caught.value)
    assert MBeir(tree, "skip").queries("mscoco_task0", "test").ids == ["9:1", "9:2"]


def test_missing_image_fails_when_opened_or_is_left_out(tree):
    (tree / "mbeir_images" / "1.png").unlink()
    pool = MBeir(tree).pool("mscoco_task0", "test")
    with pytest.raises(MediaError, match=r"1\.png"):
        pool.item("9:1").parts[0].open()
    with pytest.raises(DataError, match=r"task0_test_cand_pool\.jsonl:2: .*1\.png does not exist"):
        MBeir(tree).check("test")
    reader = MBeir(tree, "skip")
    assert list(reader.pool("mscoco_task0", "test").ids) == ["9:0", "9:2"]
    assert reader.queries("cirr_task7", "test").ids == []
    assert {problem.kind for problem in reader.problems} == {"missing media"}


def test_training_on_a_partial_tree_keeps_what_can_be_used(tree):
    (tree / "mbeir_images" / "1.png").unlink()
    append(
        tree / "query" / "train" / "mbeir_mscoco_train.jsonl", query("9:8", "text", "two", positives=["9:1", "9:2"], neg_cand_list=["9:1"])
    )
    reader = MBeir(tree, "skip")
    queries = reader.train_queries(["mscoco"])
    assert queries.ids == ["9:1", "9:3", "9:8"]
    assert queries.get("9:8").positives == ("9:2",)
    assert queries.get("9:8").negatives == ()
    assert [problem.kind for problem in queries.problems] == ["positive outside pool"]


# --- the report


def test_check_of_a_good_tree_counts_everything(tree):
    report = MBeir(tree).check("test")
    assert report.ok
    assert dict(report.counts) == {"candidates": 7, "images and videos": 7, "queries": 5, "positives": 5, "judgements": 5}
    assert str(report).endswith("nothing wrong")
    assert MBeir(tree).check("train").ok
    assert MBeir(tree).check("test", ["cirr_task7"], images=False).counts["queries"] == 1
    with pytest.raises(DataError, match="no queries for split 'dev'"):
        MBeir(tree).check("dev")


def test_positive_outside_the_pools_is_found(tree):
    append(tree / "query" / "test" / "mbeir_mscoco_task0_test.jsonl", query("9:9", "text", "a", positives=["9:0", "9:77"], task=0))
    with pytest.raises(DataError, match=r"mbeir_mscoco_task0_test\.jsonl:3: positive 9:77 is in no pool"):
        MBeir(tree).check("test")
    report = MBeir(tree, "skip").check("test")
    assert dict(report.problem_counts) == {"positive outside pool": 1}
    assert "mbeir_mscoco_task0_test.jsonl:3: positive 9:77" in str(report)


def test_positive_in_the_global_pool_alone_is_counted_as_no_fault(tree):
    append(tree / "query" / "test" / "mbeir_mscoco_task0_test.jsonl", query("9:9", "text", "a", positives=["8:1"], task=0))
    report = MBeir(tree).check("test")
    assert report.ok
    assert report.counts["positives in the global pool only"] == 1


def test_judgements_of_unknown_ids_are_found(tree):
    path = tree / "qrels" / "test" / "mbeir_cirr_task7_test_qrels.txt"
    for line in ("8:77 0 8:1 1 7", "8:4 0 8:77 1 7", "8:4 0"):
        append(path, line)
    with pytest.raises(DataError, match=r"mbeir_cirr_task7_test_qrels\.txt:4: needs 4 or 5"):
        MBeir(tree).check("test")
    report = MBeir(tree, "skip").check("test")
    assert [(problem.kind, problem.line) for problem in report.problems] == [("malformed", 4), ("unknown id", 2), ("unknown id", 3)]


def test_check_that_skips_lists_every_kind_once(tree):
    (tree / "mbeir_images" / "3.png").unlink()
    append(tree / "cand_pool" / "local" / "mbeir_mscoco_task3_test_cand_pool.jsonl", "{")
    report = MBeir(tree, "skip").check("test")
    kinds = report.problem_counts
    assert kinds["malformed"] == 1
    assert kinds["missing media"] == 2  # in the local and in the global pool
    assert kinds["positive outside pool"] == 1
    assert kinds["unknown id"] == 1
    assert str(report).endswith("5 problems")


# --- fingerprint


def test_fingerprint_follows_content_not_place(tree, tmp_path_factory):
    reader = MBeir(tree)
    before = reader.fingerprint("test")
    assert len(before) == 32
    assert reader.fingerprint("test", ["cirr_task7"]) != before
    moved = tmp_path_factory.mktemp("moved") / "tree"
    tree.rename(moved)
    assert MBeir(moved).fingerprint("test") == before
    (moved / "mbeir_images" / "0.png").unlink()
    assert MBeir(moved).fingerprint("test") == before
    append(moved / "qrels" / "test" / "mbeir_cirr_task7_test_qrels.txt", "8:4 0 8:1 1")
    assert MBeir(moved).fingerprint("test") != before
    assert MBeir(moved).fingerprint("train") != before


def test_fingerprint_of_any_files(tmp_path):
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text("1")
    b.write_text("2")
    assert fingerprint([a, b], tmp_path) == fingerprint([b, a], tmp_path)
    assert fingerprint([a], tmp_path) != fingerprint([b], tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint([tmp_path / "c.csv"], tmp_path)
