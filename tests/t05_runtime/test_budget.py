"""What memory a run may take: said, or a share of what the machine and every container around the process leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from somareg.runtime import budget

GIB = 1 << 30


def written(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")
    return folder


def test_what_is_said_holds_inside_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available", lambda: 10 * GIB)
    assert budget.allowed() == 6 * GIB
    with budget.limited(2 * GIB) as limit:
        assert limit == budget.allowed() == 2 * GIB
        with budget.limited(None):
            assert budget.allowed() == 2 * GIB
    assert budget.allowed() == 6 * GIB


def test_a_run_is_measured_by_one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available", lambda: 10 * GIB)
    with budget.limited(None):
        monkeypatch.setattr(budget, "available", lambda: GIB)  # what the run itself holds by now
        assert budget.allowed() == 6 * GIB


def test_processes_share_what_nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "available", lambda: 10 * GIB)
    with budget.shared_by(4):
        assert budget.allowed() == 6 * GIB // 4
        with budget.limited(GIB):
            assert budget.allowed() == GIB


def test_containers_of_version_2(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    written(root / "a", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=f"anon 1\ninactive_file {GIB}")
    written(root / "a" / "b", memory__max="max", memory__current=GIB)
    process = tmp_path / "process"
    process.write_text("0::/a/b\n")
    assert min(budget._of_containers(root, process)) == 2 * GIB


def test_containers_of_version_1(tmp_path: Path) -> None:
    memory = tmp_path / "cgroup" / "memory"
    written(memory, memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=GIB)
    written(memory / "job", memory__limit_in_bytes=3 * GIB, memory__usage_in_bytes=GIB)
    process = tmp_path / "process"
    process.write_text("4:memory:/job\n3:cpuset:/elsewhere\n")
    assert min(budget._of_containers(tmp_path / "cgroup", process)) == 2 * GIB


def test_inside_a_container_the_root_is_its_own(tmp_path: Path) -> None:
    root = written(tmp_path / "cgroup", memory__max=GIB, memory__current=0)
    process = tmp_path / "process"
    process.write_text("0::/\n")
    assert min(budget._of_containers(root, process)) == GIB


@pytest.mark.parametrize("told", ["", "0::/../../outside\n", "nonsense\n"])
def test_without_containers_there_is_no_limit(tmp_path: Path, told: str) -> None:
    process = tmp_path / "process"
    process.write_text(told)
    assert min(budget._of_containers(tmp_path / "cgroup", process)) >= 1 << 60


def test_this_machine_has_some() -> None:
    assert 1 << 20 < budget.available() < 1 << 60


@pytest.mark.parametrize(("count", "words"), [(1, "1 MiB"), (1.5 * GIB, "1.5 GiB"), (300 << 20, "300 MiB")])
def test_numbers_for_people(count: float, words: str) -> None:
    assert budget.in_words(count) == words
