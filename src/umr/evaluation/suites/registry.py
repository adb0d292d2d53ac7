"""The suites by name: who reads them, and where their files come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from umr.errors import DataError, RecipeError
from umr.evaluation.suites import ccneg, circo, fashion_rounds, genecis, mmeb, msrvtt, msvd, sharegpt4v, sugarcrepe, urban1k, visdial, vist
from umr.evaluation.suites.captions import read_five_captions
from umr.evaluation.suites.folder import Folder
from umr.evaluation.suites.task import Suite

_LAMRA = "LamRA's evaluation data (hub: code-kunkun/LamRA_Eval)"


@dataclass(frozen=True)
class Reader:
    """How a suite is read.

    Attributes:
        read: opens a folder.
        about: what is searched, for lists.
        source: where the files come from.
    """

    read: Callable[[Folder], Suite]
    about: str
    source: str


SUITES: dict[str, Reader] = {
    "flickr30k": Reader(partial(read_five_captions, texts_file="flickr_text.json"), "captions and images, both ways", _LAMRA),
    "coco": Reader(partial(read_five_captions, texts_file="coco_text.json"), "captions and images, both ways", _LAMRA),
    "sharegpt4v": Reader(sharegpt4v.read, "long captions and images, both ways", _LAMRA),
    "urban1k": Reader(urban1k.read, "long captions and images, both ways", "hub: BeichenZhang/Urban1k"),
    "circo": Reader(circo.read, "image and change -> image, several right", "github: miccunifi/CIRCO, and COCO's unlabeled2017"),
    "genecis": Reader(
        genecis.read,
        "image and condition -> image, in galleries",
        f"github: facebookresearch/genecis, COCO's val2017 and Visual Genome; or {_LAMRA}",
    ),
    "visdial": Reader(visdial.read, "dialog -> image", "visualdialog.org: visdial_1.0_val and its images"),
    "vist": Reader(vist.read, "story -> its last image", "visionandlanguage.net/VIST: stories in sequence, and their images"),
    "fashioniq-rounds": Reader(
        fashion_rounds.read, "several images and changes -> image", "github: yfyuan01/MultiturnFashionRetrieval; images of FashionIQ"
    ),
    "msrvtt": Reader(msrvtt.read, "caption -> video", "MSR-VTT's videos, and JSFusion's split MSRVTT_JSFUSION_test.csv"),
    "msvd": Reader(msvd.read, "caption -> video", "MSVD's YouTubeClips, with CLIP4Clip's raw-captions.pkl and test_list.txt"),
    "ccneg": Reader(ccneg.read, "image -> caption or its negation", "hub: jaisidhsingh/ccneg, with its images of CC3M"),
    "sugarcrepe": Reader(sugarcrepe.read, "image -> caption or a changed one", "github: RAIVNLab/sugar-crepe, and COCO's val2017"),
    "mmeb": Reader(mmeb.read, "any sets in MMEB's layout", "hub: TIGER-Lab/MMEB-eval"),
}
"""In the order of lists."""


def open_suite(name: str, root: Path) -> Suite:
    """Read a suite's annotations; images and videos are opened when they are embedded.

    Raises:
        RecipeError: there is no suite of that name.
        DataError: a file is missing or malformed.
    """
    if name not in SUITES:
        raise RecipeError(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
    reader, root = SUITES[name], Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: is no folder, and {name} is read from one; source: {reader.source}")
    return reader.read(Folder(name, root, f"source: {reader.source}"))
