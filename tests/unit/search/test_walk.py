"""Walking a folder: everything is listed once, whatever its name or kind, and nothing outside is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.errors import DataError
from umr.search.places import Places
from umr.search.rows import Row
from umr.search.walk import Found, real, shown, walk

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))


def write(root: Path, *names: bytes | str) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def problems(root: Path, **options: object) -> dict[str, str]:
    return {file.path: file.problem for file in walk(root, **options).files}


@given(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join))
def test_what_is_shown_is_one_line_of_text_and_can_be_undone(path: bytes) -> None:
    text = shown(path)
    assert os.fsencode(real(text)) == path
    assert len(text.splitlines()) == 1
    assert text.encode().decode() == text


@given(NAMES, NAMES)
def test_two_names_are_never_shown_alike(one: bytes, other: bytes) -> None:
    assert (shown(one) == shown(other)) == (one == other)


def test_plain_names_are_shown_as_they_are() -> None:
    assert shown("bilder/grüße 日本 #1.png".encode()) == "bilder/grüße 日本 #1.png"


def test_every_file_is_listed_once_in_order_with_its_size(tmp_path: Path) -> None:
    names = [b"b.txt", b"a/z.png", b"a/b/c.md", b"caf\xe9/\xff.jpg", b"two\nlines.txt", b"back\\slash.txt", b"-rf", b'it\'s "q".txt']
    write(tmp_path, *names)
    found = walk(tmp_path)
    assert [file.path for file in found.files] == sorted(map(shown, names))
    assert {file.path: file.size for file in found.files} == {shown(name): len(name) for name in names}
    assert all((tmp_path / real(file.path)).stat().st_mtime_ns == file.modified_ns for file in found.files)
    assert found.closed == {}
    assert walk(tmp_path) == found


def test_places_find_files_by_their_shown_names(tmp_path: Path) -> None:
    write(tmp_path, b"caf\xe9/back\\slash.jpg")
    places = Places(tmp_path / "collection", tmp_path)
    name = shown(b"caf\xe9/back\\slash.jpg")
    path = places.of(Row("a", name, "image", "", None, media=name))
    assert path is not None
    assert path.is_file()
    assert places.below_root(path) == name
    assert places.of(Row("a", "x", "image", "", None, media="\\x2e\\x2e/secret")) is None  # dots in disguise


def test_hidden_files_are_listed_with_that_as_their_problem(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", ".b.txt", ".git/objects/c", "d/.e/f.txt")
    assert {path for path, problem in problems(tmp_path).items() if problem} == {".b.txt", ".git/objects/c", "d/.e/f.txt"}
    assert "hidden" in problems(tmp_path)[".git/objects/c"]
    assert not any(problems(tmp_path, hidden=True).values())


def test_links_and_special_files_are_never_opened(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root, "a.txt", "sub/b.txt")
    write(outside, "secret.txt")
    (root / "to-file").symlink_to(outside / "secret.txt")
    (root / "to-folder").symlink_to(outside)
    (root / "to-itself").symlink_to(root)
    (root / "to-nothing").symlink_to(root / "gone")
    os.mkfifo(root / "pipe")
    found = problems(root)
    assert {path for path, problem in found.items() if not problem} == {"a.txt", "sub/b.txt"}
    assert all("symbolic link" in found[name] for name in ("to-file", "to-folder", "to-itself", "to-nothing"))
    assert "named pipe" in found["pipe"]


def test_the_collections_own_folder_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "here/collection.json", "here/rows.lance/data/1.lance", "hereafter.txt")
    assert list(problems(tmp_path, leave_out=tmp_path / "sub" / ".." / "here")) == ["a.txt", "hereafter.txt"]


def test_a_linked_root_is_the_folder_it_points_to(tmp_path: Path) -> None:
    write(tmp_path / "real", "a.txt")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(problems(tmp_path / "link")) == ["a.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "closed/b.txt")
    (tmp_path / "closed").chmod(0)
    found = walk(tmp_path)
    (tmp_path / "closed").chmod(0o755)
    assert [file.path for file in found.files] == ["a.txt"]
    assert "cannot be listed" in found.closed["closed"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    with pytest.raises(DataError, match=r"a\.txt: is not a folder"):
        walk(tmp_path / "a.txt")
    with pytest.raises(DataError, match="nowhere: does not exist"):
        walk(tmp_path / "nowhere")


def test_found_is_small() -> None:
    assert not hasattr(Found("a", 1, 1), "__dict__")  # millions of them are held
