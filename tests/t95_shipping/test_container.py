"""The Dockerfile, read: no daemon is needed, and no image is built here."""

from __future__ import annotations

import fnmatch
import itertools
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").exists(), reason="not in a checkout")


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, continuation lines joined."""

    word: str
    rest: str


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    """The instructions, by stage; each begins with its FROM."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    steps = [Step(*line.split(maxsplit=1)) for line in lines if line.strip()]
    assert steps[0].word == "FROM"
    starts = [i for i, step in enumerate(steps) if step.word == "FROM"] + [len(steps)]
    return [steps[a:b] for a, b in itertools.pairwise(starts)]


def words(stage: list[Step], word: str) -> list[str]:
    return [step.rest for step in stage if step.word == word]


def test_bases_are_slim_and_pinned(stages: list[list[Step]]) -> None:
    assert len(stages) == 2
    bases = {stage[0].rest.split()[0] for stage in stages}
    assert len(bases) == 1  # a virtual environment moves between stages only if its Python is the same
    assert re.fullmatch(r"python:3\.1\d(\.\d+)?-slim-\w+", bases.pop())


def test_it_runs_as_nobody_in_particular(stages: list[list[Step]]) -> None:
    last = stages[-1]
    order = [step.word for step in last]
    user = words(last, "USER")[-1]
    assert all(int(part) > 999 for part in user.split(":"))
    assert f"--uid {user.split(':')[0]}" in " ".join(words(last, "RUN"))
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert "EXPOSE" not in order
    assert words(last, "ENTRYPOINT") == ['["somareg"]']


def test_the_final_image_takes_the_environment_and_nothing_from_the_context(stages: list[list[Step]]) -> None:
    assert words(stages[-1], "COPY") == ["--from=build /opt/somareg /opt/somareg"]
    assert "pip" not in " ".join(words(stages[-1], "RUN"))


def test_no_secret_goes_in(stages: list[list[Step]]) -> None:
    for stage in stages:
        assert not words(stage, "ADD")
        for name in words(stage, "ENV") + words(stage, "ARG"):
            assert not re.search(r"token|secret|passw|key", name, re.IGNORECASE), name


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the context out: the last rule that fits decides."""
    verdict = False
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not rule.strip() or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        fits = (
            any(fnmatch.fnmatch(part, pattern) for part in parts)
            if "**/" in rule
            else fnmatch.fnmatch(path, pattern) or path.startswith(pattern + "/")
        )
        if fits:
            verdict = not rule.startswith("!")
    return verdict


@pytest.mark.parametrize("path", [".git/config", "tests/conftest.py", "runs/a.ckpt", ".env", "src/x/__pycache__/a.pyc"])
def test_the_context_is_small(path: str) -> None:
    assert ignored(path)


def test_what_is_copied_is_there_and_builds_the_wheel(stages: list[list[Step]], tmp_path: Path) -> None:
    """The files that the first stage copies, and no others, make the wheel."""
    for copy in words(stages[0], "COPY"):
        *sources, target = copy.split()
        for source in sources:
            assert not ignored(source), source
            goal = tmp_path / target / source if target.endswith("/") else tmp_path / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, goal, ignore=lambda _, names: [n for n in names if ignored(f"src/{n}")])
            else:
                shutil.copy(ROOT / source, goal)
    assert (tmp_path / "constraints.txt").is_file()
    wheel = next(WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"]))
    assert Path(wheel).stat().st_size > 2e6  # weights and sample are in
