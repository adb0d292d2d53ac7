"""A World on disk: M-BEIR's layout, the same bytes for the same seed, and no folder overwritten."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import av
import pytest
from PIL import Image

from umr.data.world import SETTINGS, VERSION, generate, iter_texts
from umr.data.world.generator import _generate, plan
from umr.data.world.settings import SCALES, SPLITS
from umr.errors import DataError
from umr.progress import quiet

SMALL = replace(SCALES["tiny"], pool=40, val=6, test=8, train=dict.fromkeys(SCALES["tiny"].train, 14), names=12, captions=20, text_pairs=30)


def make(out, seed=0, workers=1):
    with quiet():
        return _generate(out, "tiny", SMALL, seed, workers)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world") / "w")


@pytest.fixture(scope="module")
def root(summary):
    return summary.root


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_bytes_from_another_process_and_with_more_workers(summary, tmp_path, monkeypatch):
    monkeypatch.setitem(SCALES, "tiny", SMALL)
    with quiet():
        again = generate(tmp_path / "again", "tiny", workers=2)
    assert contents(again.root) == contents(summary.root)
    assert again.sha256 == summary.sha256


def test_digest_is_over_all_files(summary, root):
    inside = {path: data for path, data in contents(root).items() if path != "world.json" and not path.startswith("text_retrieval/")}
    lines = [f"{path} {hashlib.sha256(data).hexdigest()}\n" for path, data in inside.items()]
    assert hashlib.sha256("".join(sorted(lines)).encode()).hexdigest() == summary.sha256


def test_another_seed_gives_another_world(summary, tmp_path):
    other = contents(make(tmp_path / "other", seed=1).root)
    mine = contents(summary.root)
    for path in ("query/test/mbeir_scenes_task0_test.jsonl", "captions/captions.jsonl", "text_pairs/nli.csv"):
        assert mine[path] != other[path]
    assert mine["instructions/query_instructions.tsv"] == other["instructions/query_instructions.tsv"]


def test_the_plan_of_a_version_stays_as_it_is():
    """When this fails, the same seed gives other records than before: raise `VERSION` and renew the digest."""
    world = plan(SMALL, 0)
    records = [(sorted(map(str, book.candidates.items())), sorted(map(str, book.queries.items()))) for book in world.books.values()]
    assert (VERSION, hashlib.sha256(repr(records).encode()).hexdigest()[:16]) == (4, "30000b3af5982596")


def ids(listed):
    return [entry["did"] if isinstance(entry, dict) else entry for entry in listed]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_records_of_a_setting(root, setting):
    pool = rows(root / f"cand_pool/local/mbeir_{setting.name}_cand_pool.jsonl")
    train_pool = {c["did"] for c in rows(root / "cand_pool/global/mbeir_union_train_cand_pool.jsonl")}
    keys = {"did", "txt", "img_path", "modality", "src_content"} | ({"video_path"} if setting.task_id == 9 else set())
    for candidate in pool:
        assert candidate.keys() == keys
        assert candidate["modality"] == setting.candidate_modality
        assert candidate["did"].startswith(f"{setting.dataset_id}:")
        assert (candidate["txt"] is not None) == ("text" in setting.candidate_modality)
        assert (candidate["img_path"] is not None) == ("image" in setting.candidate_modality)
    dids = {candidate["did"] for candidate in pool}
    for split in SPLITS:
        queries = rows(root / f"query/{split}/mbeir_{setting.name}_{split}.jsonl")
        assert len(queries) == SMALL.queries(setting.name, split)
        judged = []
        for query in queries:
            assert list(query) == [
                "qid", "query_txt", "query_img_path", "query_modality", "query_src_content", "pos_cand_list", "neg_cand_list", "task_id",
            ]  # fmt: skip
            assert query["query_modality"] == setting.query_modality
            assert query["task_id"] == setting.task_id
            assert (query["query_txt"] is not None) == ("text" in setting.query_modality)
            assert (query["query_img_path"] is not None) == ("image" in setting.query_modality)
            assert set(map(type, query["pos_cand_list"])) == ({dict} if setting.dataset == "news" else {str})
            positives = ids(query["pos_cand_list"])
            assert positives and set(positives) <= (train_pool if split == "train" else dids)
            assert set(ids(query["neg_cand_list"])) <= train_pool
            judged += [f"{query['qid']} 0 {did} 1 {setting.task_id}" for did in positives]
        assert (root / f"qrels/{split}/mbeir_{setting.name}_{split}_qrels.txt").read_text().splitlines() == judged


def test_global_pools_are_unions_with_unique_ids(root):
    local = [c for s in SETTINGS for c in rows(root / f"cand_pool/local/mbeir_{s.name}_cand_pool.jsonl")]
    test = rows(root / "cand_pool/global/mbeir_union_test_cand_pool.jsonl")
    train = rows(root / "cand_pool/global/mbeir_union_train_cand_pool.jsonl")
    assert test == local == rows(root / "cand_pool/global/mbeir_union_val_cand_pool.jsonl")
    dids = [c["did"] for c in (*train, *test)]
    assert len(set(dids)) == len(dids)
    qids = [q["qid"] for path in root.glob("query/t*/*.jsonl") for q in rows(path)]
    assert len(set(qids)) == len(qids)


def test_union_train_has_every_train_query_and_repeats_whole_settings(root):
    union = [q["qid"] for q in rows(root / "query/union_train/mbeir_union_up_train.jsonl")]
    for s in SETTINGS:
        qids = [q["qid"] for q in rows(root / f"query/train/mbeir_{s.name}_train.jsonl")]
        assert {union.count(qid) for qid in qids} == {1}  # all settings of this size are equally large


def test_small_settings_are_repeated(tmp_path):
    uneven = replace(SMALL, train={**SMALL.train, "edits_task7": 35})
    with quiet():
        root = _generate(tmp_path / "w", "tiny", uneven, 0, 1).root
    union = [(q["qid"], q["task_id"]) for q in rows(root / "query/union_train/mbeir_union_up_train.jsonl")]
    assert len(union) == 35 + 2 * 14 * (len(SETTINGS) - 1)


def test_instructions_table(root):
    lines = [line.split("\t") for line in (root / "instructions/query_instructions.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 1 + len(SETTINGS)
    for cells, setting in zip(lines[1:], SETTINGS, strict=True):
        assert cells[:4] == [setting.query_modality, setting.candidate_modality, setting.dataset, str(setting.dataset_id)]
        assert tuple(cells[4:]) == setting.instructions


def test_every_media_file_opens_and_is_used(root):
    used = set()
    for path in [*root.glob("query/*/*.jsonl"), *root.glob("cand_pool/global/*.jsonl")]:
        for record in rows(path):
            used |= {record.get(key) for key in ("query_img_path", "img_path", "video_path")}
    used |= {f"captions/{row['image']}" for row in rows(root / "captions/captions.jsonl")}
    used.discard(None)
    on_disk = {name for name in contents(root) if name.endswith((".jpg", ".png", ".mp4"))}
    assert used == on_disk
    assert {Path(name).suffix for name in on_disk} == {".jpg", ".png", ".mp4"}
    for name in sorted(on_disk):
        if name.endswith(".mp4"):
            with av.open(str(root / name)) as container:
                assert sum(1 for _ in container.decode(video=0)) == 6
        else:
            with Image.open(root / name) as image:
                assert image.format == {".jpg": "JPEG", ".png": "PNG"}[Path(name).suffix]
                image.load()
                assert image.mode == "RGB" and image.width % 32 == 0 == image.height % 32


def test_pretraining_sets(root):
    with (root / "text_pairs/nli.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["sent0", "sent1", "hard_neg"]
    assert len(table) == 31 and all(len(row) == 3 and all(row) for row in table)
    captions = rows(root / "captions/captions.jsonl")
    assert len(captions) == 40
    assert all(row.keys() == {"image", "text"} for row in captions)
    assert len({(row["image"], row["text"]) for row in captions}) == 40


def test_texts_for_a_tokenizer_leave_out_what_is_evaluated(root):
    texts = set(iter_texts(root))
    assert {line for setting in SETTINGS for line in setting.instructions} <= texts
    assert {row["text"] for row in rows(root / "captions/captions.jsonl")} <= texts
    for s in SETTINGS:
        train = {q["query_txt"] for q in rows(root / f"query/train/mbeir_{s.name}_train.jsonl")} - {None}
        assert train <= texts
    evaluated = {q["query_txt"] for q in rows(root / "query/test/mbeir_facts_task1_test.jsonl")}
    assert evaluated and not evaluated & texts
    with pytest.raises(DataError, match=r"not a World"):
        next(iter_texts(root / "query"))


def test_summary_and_reuse(summary, root):
    assert not summary.reused and summary.seconds > 0 and summary.items_per_second > 0
    assert summary.counts["scenes_task0"] == {"train": 14, "val": 6, "test": 8, "train_pool": 29, "unlabelled": 11, "local_pool": 42}
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = make(root)
    assert again.reused and again.items_per_second == 0
    assert replace(again, reused=False, seconds=summary.seconds) == summary
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_refuses_what_is_not_the_same_world(root, tmp_path):
    with pytest.raises(DataError, match=f"holds World version {VERSION}, size tiny, seed 0, not version {VERSION}, size tiny, seed 5"):
        make(root, seed=5)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="not a folder"):
        generate(tmp_path / "file")
    with pytest.raises(DataError, match="not empty and not a finished World"):
        generate(tmp_path)
    (tmp_path / "world.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match="not a finished World"):
        generate(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    for wrong in ({"size": "huge"}, {"seed": -1}, {"workers": 0}):
        with pytest.raises(DataError):
            generate(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_nothing_in_place_and_is_replaced(summary, tmp_path, monkeypatch):
    from umr.data.world import generator

    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "deep" / "w"
    with monkeypatch.context() as patch:
        patch.setattr(generator, "write_media", stop)
        with pytest.raises(KeyboardInterrupt):
            make(out)
    assert not out.exists()
    out.mkdir()  # an empty folder is as good as none
    assert make(out).sha256 == summary.sha256
    assert [path.name for path in out.parent.iterdir()] == ["w"]
