from pathlib import Path

import PIL.Image
import pytest

from umr.errors import MediaError
from umr.items import Image, Item, Query, Text, Video
from umr.media import FrameSampling


def picture(colour="red", size=(4, 4)):
    return PIL.Image.new("RGB", size, colour)


def test_shorthand_puts_images_first_then_video_then_text():
    item = Item.of(text="make it blue", images=[picture(), picture("lime")], video=[picture()], id="0:1")
    assert [part.modality for part in item.parts] == ["image", "image", "video", "text"]
    assert item.modality == "image,video,text"
    assert item.id == "0:1"
    assert item.text == "make it blue"


@pytest.mark.parametrize(
    ("arguments", "modality"),
    [
        ({"text": "a"}, "text"),
        ({"image": b"x"}, "image"),
        ({"image": b"x", "text": "a"}, "image,text"),
        ({"video": Path("a.mp4")}, "video"),
    ],
)
def test_modality_is_derived(arguments, modality):
    assert Item.of(**arguments).modality == modality


def test_text_that_looks_like_a_path_stays_text(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    item = Item.of(text=str(path))
    assert item.modality == "text"
    with pytest.raises(MediaError, match=r"Path\("):
        Item.of(image=str(path))
    with pytest.raises(MediaError, match=r"Path\("):
        Video(str(path))


def test_media_are_opened_late(tmp_path):
    item = Item.of(image=tmp_path / "missing.png")
    with pytest.raises(MediaError, match=r"missing\.png"):
        item.parts[0].open()
    with pytest.raises(MediaError, match=r"missing\.png"):
        _ = item.digest


def test_empty_items_and_foreign_parts_are_refused():
    with pytest.raises(MediaError, match="item 0:7 is empty"):
        Item.of(text="", id="0:7")
    with pytest.raises(MediaError, match="must be Text, Image or Video"):
        Item(("words",))
    with pytest.raises(MediaError, match="must be a str"):
        Text(b"words")
    with pytest.raises(MediaError, match="must be a Path, bytes or a PIL image"):
        Image(5)


def test_digest_follows_content_and_order_not_the_id(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    same = {Item.of(image=path, id="a").digest, Item.of(image=path.read_bytes(), id="b").digest}
    assert len(same) == 1
    items = [
        Item.of(text="a"),
        Item.of(text="b"),
        Item.of(image=picture()),
        Item.of(image=picture("lime")),
        Item.of(image=picture(), text="a"),
        Item((Text("a"), Image(picture()))),
        Item.of(video=[picture()]),
        Item.of(video=Video([picture()], fps=2)),
        Item.of(video=Video([picture()], sampling=FrameSampling(max_frames=4))),
    ]
    assert len({item.digest for item in items}) == len(items)
    assert Item.of(image=picture()).digest == Item.of(image=picture()).digest


def test_video_frames_and_their_rate():
    frames = Video([picture(), picture("lime"), picture("blue")], fps=2).frames()
    assert frames.timestamps == (0.0, 0.5, 1.0)
    assert [image.getpixel((0, 0)) for image in frames.images] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_query_is_an_item_with_an_instruction():
    query = Query(Item.of(text="a"), "Find the image.")
    assert query.instruction == "Find the image."
    assert Query(Item.of(text="a")).instruction is None
