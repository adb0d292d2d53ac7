"""Texts: what is one, and how it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umr.errors import DataError
from umr.search.readers import texts
from umr.search.readers.texts import chunks, decode, read

PARAGRAPHS = st.lists(
    st.text(st.sampled_from("abc .。日\n\t#`é"), max_size=60) | st.sampled_from(["# One", "## Two", "```", "#" * 9, "# " + "x" * 200]),
    max_size=14,
).map("\n\n".join)


@given(PARAGRAPHS, st.booleans(), st.integers(10, 80))
def test_nothing_but_blanks_is_lost_and_nothing_is_there_twice(text: str, markdown: bool, size: int) -> None:
    found = list(chunks(text, markdown, size))
    spans = [(part.start, part.end) for part in found]
    assert all(start < end for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    covered = {index for start, end in spans for index in range(start, end)}
    assert all(text[index].isspace() for index in set(range(len(text))) - covered)
    assert all(part.text.endswith(text[part.start : part.end]) for part in found)
    longest_heading = texts.LONGEST_HEADING + 10
    assert all(part.end - part.start <= max(size + size // 2, longest_heading) for part in found)


def test_short_paragraphs_share_a_chunk_and_long_ones_are_cut_after_a_sentence() -> None:
    text = "One. " * 5 + "\n\n" + "Two two two. " * 30
    parts = list(chunks(text, size=100))
    assert parts[0].text == ("One. " * 5).strip()
    assert all(part.text.endswith("two.") for part in parts[1:])
    assert len(parts) > 3
    assert len(list(chunks("a b.\n\nc d.\n\n\n\ne", size=100))) == 1


def test_script_without_spaces_is_cut_too() -> None:
    parts = list(chunks("日本語の文章です。" * 50, size=100))
    assert all(len(part.text) <= 100 for part in parts)
    assert all(part.text.endswith("。") for part in parts)
    assert max(len(part.text) for part in chunks("x" * 1000, size=100)) == 100


def test_chunks_carry_the_headings_they_stand_under() -> None:
    body = "Some words here. " * 5
    text = f"# Book\n\n{body}\n\n## First\n\n{body}\n\n{body}\n\n## Second\n{body}\n\n# Other\n\n{body}"
    found = [part.text.replace(body.strip(), "…") for part in chunks(text, markdown=True, size=100)]
    assert found == ["# Book\n\n…", "Book\n\n## First\n\n…", "Book › First\n\n…", "Book\n\n## Second\n…", "# Other\n\n…"]


def test_a_comment_in_code_is_no_heading() -> None:
    text = "# Title\n\n```\n# comment\n\n# another\n```\n\n" + "words " * 30
    assert [part.text[:5] for part in chunks(text, markdown=True, size=60)][1] == "Title"
    assert not any(part.text.startswith(("comment", "another")) for part in chunks(text, markdown=True, size=60))


def test_plain_text_has_no_headings() -> None:
    assert [part.text for part in chunks("# not\n\nwords", size=5)] == ["# not", "words"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are(encoding: str) -> None:
    assert decode("naïve 日本".encode(encoding)) == "naïve 日本"
    assert decode(b"\xfe\xff" + "naïve".encode("utf-16-be")) == "naïve"


def test_other_encodings_are_refused_with_the_place() -> None:
    with pytest.raises(DataError, match=r"byte 0xef at 2.*save it as UTF-8"):
        decode("naïve".encode("latin-1"))
    with pytest.raises(DataError, match="binary data"):
        decode(bytes(range(1, 8)) * 20)


def test_pieces_say_where_they_come_from() -> None:
    text = "first paragraph " * 4 + "\n\n" + "second paragraph " * 4
    pieces = list(read("notes/a#1.txt", text.encode("utf-8-sig"), chunk=70))
    assert [piece.id for piece in pieces] == ["notes/a%231.txt#chunk=1", "notes/a%231.txt#chunk=2"]
    assert [text[int(piece.start) : int(piece.end)] for piece in pieces] == [piece.text for piece in pieces]  # type: ignore[arg-type]
    assert all(piece.item.text == piece.text and piece.digest == piece.item.digest for piece in pieces)
    with pytest.raises(DataError, match="only blanks"):
        list(read("a.txt", b" \n\t\n"))
