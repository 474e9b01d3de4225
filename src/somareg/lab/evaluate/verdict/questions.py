"""Questions for the verdict: pairs of many sets and levels, with artefacts of real files, and unrelated pairs.

No test pair is among them. Every question has a key and does not depend on order or on the other questions.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError
from somareg.lab.data.pairs import ByteImage, PairEntry, StoredPair, list_pairs, load_pair
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, Known
from somareg.lab.evaluate.sample import Sample, load_sample
from somareg.lab.evaluate.sampling import make_list
from somareg.lab.evaluate.verdict.situations import SITUATIONS, one_direction, repeated
from somareg.lab.evaluate.verdict.sources import SOURCES, Source
from somareg.lab.evaluate.whole import load_whole, read_whole

UNRELATED = "unrelated"
PLACED = "E"  # level whose pairs are aligned as by georeferences
SAR_SAR = Known("sar", "sar")
MIRRORED = 4  # one of this many unrelated pairs has a mirrored moving image, whose texture exists nowhere


@dataclass(frozen=True)
class Images:
    """A pair and its truth.

    Attributes:
        moving, reference: (H, W) or (C, H, W) uint8.
        truth: (2, H, W) true displacement, or (2, 3) affine, reference to moving; None when the images are unrelated.
        known: options for `register`.
    """

    moving: ByteImage
    reference: ByteImage
    truth: NDArray[np.float64] | None
    known: Known = SAR_OPTICAL


@dataclass(frozen=True)
class Question:
    """One pair for the verdict.

    Attributes:
        key: unique.
        set, level, place: its source; folds share no place.
        exact: whether the label is accurate enough for the error model.
        images: loads it.
        placed: whether it is searched as if georeferences placed the images, within a few degrees and percent.
    """

    key: str
    set: str
    level: str
    place: str
    exact: bool
    images: Callable[[], Images]
    placed: bool = False


ACROSS = 200  # unrelated pairs of different sets
AMBIGUOUS = 40  # pairs of repeated texture, and of texture along one direction
SAME_SENSOR = 40  # SAR of one place before and after
WHOLE = "crossmodal"


def questions(data_dir: Path, seed: int = 0) -> list[Question]:
    """All questions, ordered so that any beginning has some of each kind."""
    result: list[Question] = []
    pools: dict[str, list[Sample]] = {}
    for source in SOURCES:
        samples = _drawn(data_dir, source, seed)
        pools[f"{source.info.name}{source.info.crop}{source.info.roles['val']}"] = samples
        result += _of_source(data_dir, source, samples)
    result += _across(data_dir, list(pools.values()))
    result += _ambiguous(data_dir, pools)
    result += _same_sensor(data_dir, pools)
    result += _whole(data_dir)
    keys = [question.key for question in result]
    if len(set(keys)) != len(keys):
        raise InputError("two questions have the same key")
    return sorted(result, key=lambda question: zlib.crc32(question.key.encode()))


def _drawn(data_dir: Path, source: Source, seed: int) -> list[Sample]:
    count = max(source.related, math.ceil(source.unrelated / len(source.levels) / 2))
    levels = [level for level in source.levels if not level.startswith("N")]
    drawn_samples = make_list(data_dir, source.info, "val", count=count, levels=levels, seed=seed).samples
    warped = [level for level in source.levels if level.startswith("N")]
    if warped:
        more = make_list(data_dir, source.info, "val", count=source.related, levels=warped, seed=seed)
        drawn_samples = {**drawn_samples, **more.samples}
    return [sample for level in source.levels for sample in drawn_samples[level]]


def _of_source(data_dir: Path, source: Source, samples: list[Sample]) -> Iterator[Question]:
    name, crop, role = source.info.name, source.info.crop, source.info.roles["val"]
    label = f"{name}/{crop}/{role}"

    def asked(
        kind: str, number: int, sample: Sample, images: Callable[[], Images], exact: bool, is_placed: bool = False
    ) -> Question:
        key = f"{label}/{kind}/{'placed/' * is_placed}{number}"
        return Question(key, name, kind, part(sample), exact, images, is_placed)

    for level in source.levels:
        own = [sample for sample in samples if sample.level == level][: source.related]
        for number, sample in enumerate(own):
            yield asked(level, number, sample, partial(_related, data_dir, sample), source.exact, level == PLACED)
    for number in range(source.unrelated):
        first = samples[number % len(samples)]
        second = elsewhere(samples, first, number, source.apart)
        yield asked(
            UNRELATED, number, first, partial(_unrelated, data_dir, first, second, number), False, number % 2 == 1
        )
    mild = [sample for sample in samples if sample.level in ("E", "m")]
    for situation in SITUATIONS if source.drawn_on else ():
        for number in range(source.drawn_on):
            turn = zlib.crc32(f"{situation}{number}".encode())
            first = mild[turn % len(mild)]
            second = elsewhere(samples, first, turn, source.apart)
            load = partial(_drawn_on, data_dir, situation, first, None, number)
            is_placed = first.level == PLACED
            yield asked(situation, number, first, load, source.exact, is_placed)
            load = partial(_drawn_on, data_dir, situation, first, second, number)
            yield asked(f"{UNRELATED}, {situation}", number, first, load, False, is_placed)


def _across(data_dir: Path, pools: Sequence[list[Sample]]) -> Iterator[Question]:
    """Unrelated pairs of different sets and crops."""
    for number in range(ACROSS):
        rng = np.random.default_rng([11, number])
        one, two = (pools[i] for i in rng.permutation(len(pools))[:2])
        first, second = one[int(rng.integers(len(one)))], two[int(rng.integers(len(two)))]
        if first.pair.set == second.pair.set:
            continue
        load = partial(_unrelated, data_dir, first, second, number)
        yield Question(f"across/{number}", "across", UNRELATED, part(first), False, load)


def _ambiguous(data_dir: Path, pools: dict[str, list[Sample]]) -> Iterator[Question]:
    samples = [s for name in ("ombria160val", "sen12patches160train", "sih224train") for s in pools[name]]
    for kind, make in (("repeated", repeated), ("one direction", one_direction)):
        for number in range(AMBIGUOUS):
            sample = samples[zlib.crc32(f"{kind}{number}".encode()) % len(samples)]

            def load(
                make: Callable[..., tuple[ByteImage, ByteImage, NDArray[np.float64]]] = make,
                sample: Sample = sample,
                number: int = number,
            ) -> Images:
                still = _related(data_dir, replace(sample, matrix=np.eye(2, 3), warp=None))
                return Images(*make(still.moving, still.reference, np.random.default_rng([13, number])))

            yield Question(f"{kind}/{number}", "situations", kind, part(sample), False, load)


def _same_sensor(data_dir: Path, pools: dict[str, list[Sample]]) -> Iterator[Question]:
    """SAR before and after a flood."""
    stored = {entry.name: entry for entry in list_pairs(data_dir, {"ombria"}, {"val"})}
    number = 0
    for sample in pools["ombria160val"]:
        other = stored.get(_other_date(sample.pair.name))
        if other is None or sample.level not in ("m", "H", "A") or number >= SAME_SENSOR:
            continue

        def load(sample: Sample = sample, other: PairEntry = other) -> Images:
            here = load_sample(
                data_dir, replace(sample, pair=other, matrix=np.eye(2, 3), warp=None), _pair(data_dir, other)
            )
            there = _related(data_dir, sample)
            return Images(there.moving, here.moving, there.truth, SAR_SAR)

        yield Question(f"sar-sar/{number}", "sar-sar", sample.level, part(sample), False, load)
        number += 1


def _other_date(name: str) -> str:
    swap = {"BEFORE": "AFTER", "AFTER": "BEFORE", "before": "after", "after": "before"}
    return re.sub("BEFORE|AFTER|before|after", lambda found: swap[found[0]], name)


def _whole(data_dir: Path) -> Iterator[Question]:
    """Whole pairs of other modalities, and unrelated ones of the same modalities."""
    samples = read_whole(data_dir, WHOLE, "val").whole

    def load(first: int, second: int) -> Images:
        one, two = load_whole(data_dir, samples[first]), load_whole(data_dir, samples[second])
        if first == second:
            return Images(one.moving, one.reference, one.truth(), one.known)
        known = replace(one.known, moving_modality=two.known.moving_modality, moving_mask=two.known.moving_mask)
        return Images(two.moving, one.reference, None, known)

    for number, sample in enumerate(samples):
        name, exact = sample.pair.name, sample.pair.floor_px <= 1.0
        yield Question(f"{WHOLE}/{number}", WHOLE, sample.pair.modality, name, exact, partial(load, number, number))
        other = (number * 7 + 5) % len(samples)
        if other != number:
            key = f"{WHOLE}/{UNRELATED}/{number}"
            yield Question(key, WHOLE, UNRELATED, name, False, partial(load, number, other))


@lru_cache(maxsize=600)
def _pair(data_dir: Path, entry: PairEntry) -> StoredPair:
    return load_pair(data_dir, entry)


def _related(data_dir: Path, sample: Sample) -> Images:
    loaded = load_sample(data_dir, sample, _pair(data_dir, sample.pair))
    return Images(loaded.moving, loaded.reference, loaded.truth())


def _unrelated(data_dir: Path, first: Sample, second: Sample, number: int) -> Images:
    moving, reference = _related(data_dir, first).moving, _related(data_dir, second).reference
    if number % MIRRORED == 0:
        moving = np.ascontiguousarray(moving[..., ::-1])
    return Images(moving, reference, None)


def _drawn_on(data_dir: Path, situation: str, first: Sample, second: Sample | None, number: int) -> Images:
    one = _related(data_dir, first)
    reference = one.reference if second is None else _related(data_dir, second).reference
    moving, reference = SITUATIONS[situation].on(one.moving, reference, number)
    return Images(moving, reference, one.truth if second is None else None)


def elsewhere(every: list[Sample], first: Sample, number: int, apart: int) -> Sample:
    """A sample of another place.

    Raises:
        InputError: there is none.
    """
    order = np.random.default_rng([7, number]).permutation(len(every))
    for i in order:
        other = every[int(i)]
        distance = math.hypot(other.origin[0] - first.origin[0], other.origin[1] - first.origin[1])
        if place(other) != place(first) or distance > apart:
            return other
    raise InputError(f"all samples of {first.pair.set} show one place; give a folder with pairs of several places")


def place(sample: Sample) -> str:
    """Set and place of a sample; names that differ in "before" and "after" alone show one place.

    Groups of the VHR sets name the publication or the city of a pair, and every pair shows a
    place of its own.
    """
    pair = sample.pair
    ground = pair.name if pair.set.startswith("vhr") else pair.group
    return f"{pair.set}/{re.sub('before|after', '', ground.lower())}"


def part(sample: Sample) -> str:
    """Set and place; for a whole scene also the quarter, so that one scene can be divided into folds."""
    pair, (x, y) = sample.pair, sample.origin
    quarter = f"/{2 * x // pair.width}{2 * y // pair.height}" if max(pair.width, pair.height) > 2000 else ""
    return place(sample) + quarter
