"""Puts a planned World on disk in M-BEIR's layout."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from umr.data.world.book import Job, Record, World
from umr.data.world.clips import Clip, encode_clip
from umr.data.world.draw import encode
from umr.data.world.pretraining import CAPTIONS_FOLDER
from umr.data.world.random_stream import Stream
from umr.data.world.settings import SETTINGS, SPLITS
from umr.data.world.statements import STATEMENTS_FOLDER, plan_statements
from umr.data.world.truth import TRAIN_POOL
from umr.progress import progress

TEXT_PAIRS = "text_pairs/nli.csv"
CAPTIONS = f"{CAPTIONS_FOLDER}/captions.jsonl"
INSTRUCTIONS = "instructions/query_instructions.tsv"
UNION_TRAIN = "query/union_train/mbeir_union_up_train.jsonl"

OBJECT_IDS = "news"
"""The dataset whose lists of ids hold objects `{"did": ...}`; the others hold strings. Both are met in the wild."""

_BATCH = 200


def write_media(root: Path, jobs: list[Job], workers: int) -> dict[str, str]:
    """Draw all pictures and clips. Returns the SHA-256 of each file, by path below `root`."""
    for folder in dict.fromkeys(Path(job.path).parent for job in jobs):
        (root / folder).mkdir(parents=True, exist_ok=True)
    batches = [jobs[i : i + _BATCH] for i in range(0, len(jobs), _BATCH)]
    digests: dict[str, str] = {}
    with progress("drawing World", total=len(jobs), unit="files") as bar:
        for done in _each(root, batches, workers):
            digests.update(done)
            bar.advance(len(done))
    return digests


def _each(root: Path, batches: list[list[Job]], workers: int) -> Iterator[dict[str, str]]:
    if workers <= 1:
        yield from (_draw(root, batch) for batch in batches)
        return
    # "spawn": a fork would copy whatever threads the calling process has started.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_draw, [root] * len(batches), batches)


def _draw(root: Path, jobs: list[Job]) -> dict[str, str]:
    digests = {}
    for job in jobs:
        data = _encode(job)
        (root / job.path).write_bytes(data)
        digests[job.path] = hashlib.sha256(data).hexdigest()
    return digests


def _encode(job: Job) -> bytes:
    stream = Stream(*job.key)
    if isinstance(job.content, Clip):
        return encode_clip(job.content, stream)
    return encode(job.content, stream, Path(job.path).suffix)


def write_texts(
    root: Path, world: World, text_pairs: Iterable[tuple[str, str, str]], captions: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Write everything but the media. Returns the SHA-256 of each file, by path below `root`."""
    digests = {}
    for path, text in _files(world, text_pairs, captions):
        data = text.encode()
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        digests[path] = hashlib.sha256(data).hexdigest()
    return digests


def _files(world: World, text_pairs: Iterable[tuple[str, str, str]], captions: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Path and content of every text file."""
    for setting in SETTINGS:
        book = world.books[setting.dataset]
        for split in SPLITS:
            queries = book.queries[setting.name, split]
            yield f"query/{split}/mbeir_{setting.name}_{split}.jsonl", _lines(_as_found(setting.dataset, query) for query in queries)
            yield f"qrels/{split}/mbeir_{setting.name}_{split}_qrels.txt", "".join(_judgements(queries))
        yield f"cand_pool/local/mbeir_{setting.name}_cand_pool.jsonl", _lines(book.candidates[setting.name, "pool"])
    pools = {
        pool: _lines(record for s in SETTINGS for record in world.books[s.dataset].candidates[s.name, pool]) for pool in ("train", "pool")
    }
    yield TRAIN_POOL, pools["train"]
    yield "cand_pool/global/mbeir_union_val_cand_pool.jsonl", pools["pool"]
    yield "cand_pool/global/mbeir_union_test_cand_pool.jsonl", pools["pool"]
    yield UNION_TRAIN, _lines(_upsampled(world))
    yield INSTRUCTIONS, _instructions()
    yield "instructions/candidate_metadata.tsv", _candidate_metadata(world)
    yield TEXT_PAIRS, _csv([("sent0", "sent1", "hard_neg"), *text_pairs])
    yield CAPTIONS, _lines({"image": path, "text": text} for path, text in captions)
    for split, rows in plan_statements(world).items():
        yield f"{STATEMENTS_FOLDER}/{split}.jsonl", _lines(rows)


def _as_found(dataset: str, query: Record) -> Record:
    if dataset != OBJECT_IDS:
        return query
    return {**query, **{key: [{"did": did} for did in query[key]] for key in ("pos_cand_list", "neg_cand_list")}}


def _judgements(queries: list[Record]) -> Iterator[str]:
    for query in queries:
        for did in query["pos_cand_list"]:
            yield f"{query['qid']} 0 {did} 1 {query['task_id']}\n"


def _upsampled(world: World) -> Iterator[Record]:
    """All train queries; a setting is repeated as often as it goes whole into the largest one."""
    largest = max(len(world.books[s.dataset].queries[s.name, "train"]) for s in SETTINGS)
    for setting in SETTINGS:
        queries = world.books[setting.dataset].queries[setting.name, "train"]
        for _ in range(largest // len(queries)):
            yield from (_as_found(setting.dataset, query) for query in queries)


def _instructions() -> str:
    rows = [("query_modality", "cand_modality", "dataset_name", "dataset_id", "prompt_1", "prompt_2", "prompt_3", "prompt_4")]
    rows += [(s.query_modality, s.candidate_modality, s.dataset, str(s.dataset_id), *s.instructions) for s in SETTINGS]
    return "".join("\t".join(row) + "\n" for row in rows)


def _candidate_metadata(world: World) -> str:
    rows = [("dataset_name", "dataset_id", "task_id", "cand_modality", "domain", "local_pool_size")]
    for s in SETTINGS:
        pool = world.books[s.dataset].candidates[s.name, "pool"]
        rows.append((s.dataset, str(s.dataset_id), str(s.task_id), s.candidate_modality, s.domain, str(len(pool))))
    return "".join("\t".join(row) + "\n" for row in rows)


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _csv(rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
