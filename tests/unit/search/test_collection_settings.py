"""`collection.json`: read, written, and what is said about one that cannot be used."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from umr.errors import RecipeError, StoreError
from umr.search.settings import CollectionSettings

SETTINGS = CollectionSettings(model="m", fingerprint="f00", dimension=8, root="/data", instruction="Find it.", template_hash="t")


def test_settings_come_back_as_they_went(tmp_path: Path):
    SETTINGS.write(tmp_path)
    assert CollectionSettings.exist(tmp_path) and CollectionSettings.read(tmp_path) == SETTINGS
    assert (datetime.now(UTC) - SETTINGS.created).total_seconds() < 3600
    assert [path.name for path in tmp_path.iterdir()] == ["collection.json"]


def test_a_folder_without_collection_says_what_to_do(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=r"no collection here \(collection.json is missing\); make one with `umr index"):
            CollectionSettings.read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 2}', "format 2, but this version reads format 1; a newer version of umr wrote it: upgrade"),
        ('{"format": 0}', "format 0.*index the folder again"),
        ('{"format": 1, "model": "m"}', "damaged: fingerprint: Field required"),
        (json.dumps({**json.loads(SETTINGS.model_dump_json()), "dimensions": 3}), "damaged: dimensions: Extra inputs"),
        (json.dumps({**json.loads(SETTINGS.model_dump_json()), "dimension": 0}), "damaged: dimension: "),
        ("\udcff", "cannot be read"),
    ],
)
def test_unusable_settings_name_the_file_and_the_fault(tmp_path: Path, content: str, message: str):
    (tmp_path / "collection.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=f"collection.json: {message}") as caught:
        CollectionSettings.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_model_is_refused(tmp_path: Path):
    SETTINGS.check_model("f00", 8, tmp_path)
    for fingerprint, dimension in (("bar", 8), ("f00", 9)):
        with pytest.raises(StoreError, match=r"holds vectors of m \(fingerprint f00, dimension 8\), but this model has"):
            SETTINGS.check_model(fingerprint, dimension, tmp_path)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        SETTINGS.write(tmp_path / "file")


def test_settings_of_a_file_without_them_are_the_defaults_of_its_time(tmp_path: Path):
    old = {
        key: value
        for key, value in json.loads(SETTINGS.model_dump_json()).items()
        if key in ("format", "model", "fingerprint", "dimension")
    }
    (tmp_path / "collection.json").write_text(json.dumps(old))
    found = CollectionSettings.read(tmp_path)
    assert (found.dtype, found.max_pixels, found.texts, found.hidden) == ("float32", None, "plain", False)
    assert (found.reading.captions, found.reading.chunk, found.reading.clip_seconds) == (True, 1200, 10.0)


def test_other_values_are_checked():
    assert SETTINGS.changed(chunk=300).reading.chunk == 300 and SETTINGS.changed() == SETTINGS
    with pytest.raises(RecipeError, match="chunk=3: "):
        SETTINGS.changed(chunk=3)
    with pytest.raises(RecipeError, match="texts='loud': "):
        SETTINGS.changed(texts="loud")
