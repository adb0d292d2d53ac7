"""A small real pipeline: a tiny model from nothing, two training stages of a few steps, an evaluation after each."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from pipeline import training_data
from unit import mbeir_fixture

PIPELINE = """
name: small
folder: {root}/run
variables: {seed: 0, steps: 2}
sources: {"{root}/tree": "example.org/tree"}
stages:
  - {name: start, kind: init, texts: {root}/texts.txt, seed: ${seed}}
  - {name: captions, kind: train, recipe: recipes/captions.yaml, with: {model.path: ${start}, training.steps: ${steps}}}
  - {name: find, kind: train, recipe: recipes/find.yaml, with: {model.path: ${captions}}}
  - {name: after-captions, kind: eval, model: ${captions}, benchmark: {root}/bench}
  - {name: after-find, kind: eval, model: ${find}, benchmark: {root}/bench, pools: [local]}
"""


def write(root: Path) -> Path:
    """Data, recipes and `pipeline.yaml`; returns its path."""
    training_data.write_tree(root / "tree")
    training_data.write_captions(root / "captions", training_data.SCENES[::5])
    mbeir_fixture.write_tree(root / "bench")
    (root / "texts.txt").write_text("".join(f"{training_data.caption(scene)}\n" for scene in training_data.SCENES))
    training = {"batch_size": 8, "learning_rate": 1e-3, "chunk_tokens": 256, "save_every": 1, "log_every": 1, "workers": 0}
    recipes = {
        "captions": {"kind": "captions", "path": str(root / "captions" / "captions.jsonl")},
        "find": {"kind": "mbeir", "path": str(root / "tree"), "settings": ["shapes_task0"]},
    }
    for name, data in recipes.items():
        recipe = {"name": name, "model": {"path": "model"}, "data": [data], "training": {**training, "steps": 3}}
        recipe["loss"] = {"temperature": 0.1, "learn_temperature": True} if name == "captions" else {"learn_temperature": True}
        path = root / "recipes" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(recipe))
    (root / "pipeline.yaml").write_text(PIPELINE.replace("{root}", str(root)))
    return root / "pipeline.yaml"


def products(run: Path) -> dict[str, str]:
    """Fingerprint of each stage's product, by its name."""
    return {file.parent.name: json.loads(file.read_text())["product"] for file in sorted(run.glob("*/stage.json"))}


FULL = """
name: full
folder: {root}/full
stages:
  - {name: start, kind: init, texts: {root}/texts.txt}
  - {name: find, kind: train, recipe: recipes/find.yaml, with: {model.path: ${start}}}
  - {name: mine, kind: mine, model: ${find}, benchmark: {root}/tree, depth: 20, negatives: 2, max_similarity: null}
  - name: hard
    kind: train
    recipe: recipes/find.yaml
    with: {model.path: ${find}, data.0.mined: ${mine}, loss.negatives: 2, training.steps: 2}
  - {name: reranker, kind: train, recipe: recipes/reranker.yaml, with: {model.path: ${start}}}
  - {name: weights, kind: fuse, model: ${hard}, reranker: ${reranker}, benchmark: {root}/bench, depth: 5, pools: [local]}
  - name: score
    kind: score
    model: ${hard}
    reranker: ${reranker}
    benchmark: {root}/tree
    depth: 6
    fraction: 1.0
    settings: [shapes_task0]
  - name: distilled
    kind: train
    recipe: recipes/distilled.yaml
    with: {model.path: ${hard}, data.0.scores: ${score}, loss.vectors: ${vectors}}
  - {name: after, kind: eval, model: ${distilled}, benchmark: {root}/bench}
  - name: plus
    kind: eval
    model: ${distilled}
    benchmark: {root}/bench
    reranker: ${reranker}
    rerank_depth: 5
    weights: ${weights}
    weights_of_another_model: true
"""


def write_full(root: Path) -> Path:
    """`full.yaml`, with a stage of every kind but `world` and `merge`, beside what `write` made."""
    for kind, ending in (("query", ".jsonl"), ("qrels", "_qrels.txt")):
        for file in (root / "bench" / kind / "test").iterdir():
            name = file.name.replace(f"_test{ending}", f"_val{ending}")
            (root / "bench" / kind / "val").mkdir(exist_ok=True)
            (root / "bench" / kind / "val" / name).write_bytes(file.read_bytes())
    everything = root / "bench" / "cand_pool" / "global"
    (everything / "mbeir_union_val_cand_pool.jsonl").write_bytes((everything / "mbeir_union_test_cand_pool.jsonl").read_bytes())
    find = yaml.safe_load((root / "recipes" / "find.yaml").read_text())
    reranker = {**find, "name": "reranker", "loss": {"kind": "rerank", "negatives": 1}}
    scored = {"kind": "scored", "path": str(root / "tree"), "scores": "scores"}
    distilled = {**find, "name": "distilled", "data": [scored], "loss": {"kind": "distillation", "list_length": 4}}
    for recipe in (reranker, distilled):
        (root / "recipes" / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
    (root / "full.yaml").write_text(FULL.replace("{root}", str(root)))
    return root / "full.yaml"


STUDY = """
name: which
pipeline: pipeline.yaml
folder: {root}/study
seeds: [0, 1]
tables:
  - name: steps of captions
    paper: "Table 0"
    stage: after-captions
    baseline: two
    variants:
      two: {}
      three: {steps: 3}
    paper_local: {two: 50.0}
  - name: order
    stage: after-find
    baseline: captions first
    variants:
      captions first: {}
      find alone: {stages.find.with.model.path: "${start}"}
      captions alone: {stage: after-captions}
"""


def write_study(root: Path) -> Path:
    """`study.yaml` beside the pipeline that `write` made."""
    (root / "study.yaml").write_text(STUDY.replace("{root}", str(root)))
    return root / "study.yaml"
