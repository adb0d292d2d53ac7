"""The demo's collection: things of every kind, indexed once, searched, and replaced when the model is another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umr.data.mbeir import MBeir
from umr.demo import collection
from umr.models.embedder import Embedder
from umr.progress import quiet
from umr.search.settings import CollectionSettings


def test_things_are_indexed_once_and_found(own_world: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "PER_SETTING", 2)
    monkeypatch.setattr(collection, "ANSWERED", 1)
    tree, embedder, folder = MBeir(own_world), Embedder.load(tiny_model), tmp_path / collection.FOLDER

    def index() -> tuple[str, list[int]]:
        with quiet(), collection.index(tree, "test", embedder, tiny_model, tmp_path) as things:
            records = [json.loads(line) for line in (tmp_path / collection.MANIFEST).read_text().splitlines()]
            assert len(things) == len(records) > 20 and things.stats().files == {"indexed": len(records)}
            assert set(things.stats().modalities) == {"text", "image", "image,text", "video"}
            for _, setting in collection.ASKED:
                assert set(tree.queries(setting, "test")[0].positives) <= {record["id"] for record in records}
            found = list(collection.searches(things, tree, "test"))
            assert [str(line).startswith(f"among {len(records)} things, ") for line in found[::2]] == [True, True]
            return things.table.version(), [table.row_count for table in found[1::2]]

    made = index()
    assert made[1] == [collection.SHOWN] * 2
    assert index() == made  # nothing was written again
    settings = CollectionSettings.read(folder)
    assert settings.texts == "mbeir" and settings.model == str(tiny_model.resolve())
    settings.changed(fingerprint="of another model").write(folder)
    assert index()[1] == made[1]
    assert CollectionSettings.read(folder).fingerprint == embedder.fingerprint
    (folder / "collection.json").write_text("{")
    assert index()[1] == made[1]
