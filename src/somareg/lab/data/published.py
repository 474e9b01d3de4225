"""Readers for published SAR-optical data sets, as their authors and the loaders in use lay them out.

None of them states the residual misregistration of a pair, so labels are the identity. Where file names do not tell
the place, all pairs of one role share a `group`: only the published split may then be used.

The trees below were read from public loaders: SEN1-2 (Schmitt, Hughes and Zhu, ISPRS Annals IV-1, 2018) from several
that replace `s1` by `s2` in both folder and file; OSdataset (Xiang et al., JSTARS 13, 2020; CC-BY-NC) in the three
forms met, `512/train/sar1.png`, `512/test/sar/sar1.png` and `512/train_sar/sar1.png`; GFGE_SO and SOPatch as in the
loader of the SOMA release (arXiv 2511.13168) and, for `SAR`, `RGB` and text lists, in a pre-training loader;
WHU-SEN-City (Wang et al., IEEE Access 7, 2019) as in its own `read_sen_dataset.py`.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from somareg.errors import ReadError
from somareg.lab.data.folders import FolderTree, Found, image_names, places, read_tree
from somareg.lab.data.pair_dataset import PairDataset

_SEN12 = re.compile(r"(?P<roi>ROIs\d+_[a-z]+)_\*_(?P<scene>\d+)_p\d+$", re.IGNORECASE)
_SEN12_FILE = re.compile(r"ROIs\d+_[a-z]+_s[12]_\d+_p\d+$", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:^|/)(?:sar|opt)\d+\.[a-z]+$", re.IGNORECASE)
_CITY_FILE = re.compile(r"_of_s[12](?![a-z0-9])", re.IGNORECASE)

_SPLITS = frozenset(("train", "val", "test"))


def read_sen12(folder: Path) -> PairDataset:
    """SEN1-2: `ROIs1158_spring/s1_0/ROIs1158_spring_s1_0_p30.png` with `s2_0/ROIs1158_spring_s2_0_p30.png`.

    Any folders above the files will do, so the copies sorted by terrain (`v_2/agri/s1/...`) are read too. A place is
    one scene of one season's regions of interest (ROIs); its patches overlap by half.

    Raises:
        ReadError: see `read_tree`.
    """
    tree = "ROIs1158_spring/s1_0/ROIs1158_spring_s1_0_p30.png with s2_0/ROIs1158_spring_s2_0_p30.png"
    return read_tree(folder, FolderTree("sen1-2", tree, lambda _: "sen1-2", _sen12_scene))


def read_osdataset(folder: Path) -> PairDataset:
    """OSdataset: `512/train/sar1.png` with `512/train/opt1.png` (or in folders `sar` and `opt`), also val and test.

    The 256 px patches are cuts of the 512 px ones; each size is a set of its own, `osdataset-512` and `osdataset-256`.
    Use one: their splits need not agree.

    Raises:
        ReadError: see `read_tree`.
    """
    tree = "512/train/sar1.png with 512/train/opt1.png, or 512/train/sar/sar1.png with 512/train/opt/opt1.png"
    return read_tree(folder, FolderTree("osdataset", tree, _os_set))


def read_gfge_so(folder: Path) -> PairDataset:
    """GFGE_SO: `train/sar/sar1.png` with `train/opt/opt1.png`, or `SAR/1.png` with `RGB/1.png` and `train.txt`.

    Raises:
        ReadError: see `read_tree`.
    """
    tree = "train/sar/sar1.png with train/opt/opt1.png, or SAR/1.png with RGB/1.png and train.txt, val.txt, test.txt"
    return read_tree(folder, FolderTree("gfge_so", tree, lambda _: "gfge_so"))


def read_whu_sen_city(folder: Path) -> PairDataset:
    """WHU-SEN-City as patches, `train/sar/1.png` with `train/opt/1.png`, or as city images.

    City images are `train/<city>/..._of_S1....png` (the pseudo-colour SAR image) with `..._of_S2....png`, of one size;
    each city is a place. The raw download keeps SAR amplitudes as `..._of_S1/Amplitude_VV.img`, on another grid than
    the optical image: turn them into an image of its size first.

    Raises:
        ReadError: see `read_tree`; or the folder is the raw download.
    """
    tree = "train/sar/1.png with train/opt/1.png, or train/<city>/NAME_of_S1.png with NAME_of_S2.png"
    if folder.is_dir() and next(folder.rglob("Amplitude_V[HV].img"), None):
        raise ReadError(f"{folder} holds raw amplitudes (Amplitude_VV.img); export them as images first: {tree}")
    return read_tree(folder, FolderTree("whu-sen-city", tree, lambda _: "whu-sen-city", _last_place))


def read_sopatch(folder: Path) -> PairDataset:
    """SOPatch and the tree of the SOMA release: `<set>/train/sar/NAME` with `<set>/train/opt/NAME`.

    Sets are OSdataset, SEN1-2, WHU-SEN-City and GFGE; their names are kept, in lower case, after `sopatch-`.

    Raises:
        ReadError: see `read_tree`.
    """
    tree = "OSdataset/train/sar/NAME.png with OSdataset/train/opt/NAME.png, likewise SEN1-2, WHU-SEN-City, GFGE"
    return read_tree(folder, FolderTree("sopatch", tree, lambda pair: f"sopatch-{_first(pair.name).lower()}"))


def read_pair_folders(folder: Path) -> PairDataset:
    """Any tree in which the SAR and the optical path differ in one word only, such as `sar/NAME` with `optical/NAME`.

    The words are sar, s1 and optical, opt, rgb, s2; a `mask/NAME` (white: imagery) is used too. The set is the folder's
    name. A place is a folder above `sar` and `optical`; without one, all pairs of a role are one place. Write a
    `pairs.csv` to say more.

    Raises:
        ReadError: see `read_tree`.
    """
    tree = "sar/NAME.png with optical/NAME.png, optionally below <place>/ and train/, val/, test/"
    name = folder.resolve().name.lower() or "pairs"
    return read_tree(folder, FolderTree("folders", tree, lambda _: name, _last_place))


def detect(folder: Path) -> str:
    """The kind of a folder without `pairs.csv`, from its file names first, then from its own name.

    Raises:
        ReadError: it is not a folder.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder} is not a folder; give the folder that holds the data")
    own = re.sub(r"[^a-z0-9]", "", folder.resolve().name.lower())
    if any((child / split / "sar").is_dir() for child in folder.iterdir() if child.is_dir() for split in _SPLITS):
        return "osdataset" if (folder / "512").is_dir() or (folder / "256").is_dir() else "sopatch"
    name = next(image_names(folder), "")
    if _SEN12_FILE.search(PurePosixPath(name).stem):
        return "sen1-2"
    if "gfge" in own:
        return "gfge_so"
    if "whusencity" in own or _CITY_FILE.search(name) or next(folder.rglob("*_of_S1"), None):
        return "whu-sen-city"
    if "osdataset" in own or _NUMBERED.search(name):
        return "osdataset"
    return "folders"


def _sen12_scene(pair: Found) -> str | None:
    match = _SEN12.search(pair.key)
    return f"{match['roi']}_{match['scene']}" if match else None


def _os_set(pair: Found) -> str:
    size = next((part for part in PurePosixPath(pair.name).parts[:-1] if part in ("512", "256")), None)
    return f"osdataset-{size}" if size else "osdataset"


def _last_place(pair: Found) -> str | None:
    above = places(pair.key)
    return above[-1] if above else None


def _first(name: str) -> str:
    return PurePosixPath(name).parts[0]
