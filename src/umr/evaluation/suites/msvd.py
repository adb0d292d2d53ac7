"""MSVD (Chen and Dolan, ACL 2011): 670 clips for testing, each with some forty sentences, all of which are queries.

<root>/test_list.txt            names of clips, one a line
<root>/raw-captions.pkl         name -> sentences, each a list of words
<root>/YouTubeClips/<name>.avi
"""

from __future__ import annotations

from umr.errors import DataError
from umr.evaluation.suites.folder import Folder, inside
from umr.evaluation.suites.plain_pickle import read_plain
from umr.evaluation.suites.task import Suite
from umr.evaluation.suites.videos import text_to_video
from umr.frames import FrameSampling

SAMPLING = FrameSampling(min_frames=12, max_frames=12)
"""Twelve frames a clip, as LamRA and U-MARVEL show them."""


def read(folder: Folder) -> Suite:
    """Read the folder. Raises `DataError`."""
    listed, path, videos = folder.file("test_list.txt"), folder.file("raw-captions.pkl"), folder.folder("YouTubeClips")
    names = [line.strip() for line in listed.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    captions = read_plain(path)
    if not names or not isinstance(captions, dict):
        raise DataError(f"{path if names else listed}: must hold {'captions by name' if names else 'names of clips'}; fetch it again")
    texts, owners = [], []
    for place, name in enumerate(names):
        sentences = captions.get(name)
        if not isinstance(sentences, list) or not sentences:
            raise DataError(f"{path}: has no sentences of {name!r}, which {listed.name} names")
        for words in sentences:
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise DataError(f"{path}: a sentence of {name!r} must be a list of words")
            texts.append(" ".join(words))
            owners.append(place)
    clips = [inside(videos, f"{name}.avi", str(listed)) for name in names]
    return Suite(folder.suite, folder.root, folder.source, (listed, path), (text_to_video(clips, SAMPLING, texts, owners),), "hit@1")
