"""Files for those who work on somareg: they name what exists, and versions agree. No service is asked for anything."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.t95_shipping.pages import tool

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
CONDA = {"pytorch": "torch", "py-opencv": "opencv-python-headless"}

pytestmark = pytest.mark.skipif(not GITHUB.is_dir(), reason="not in a checkout")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]
    return made


def test_jobs_cover_systems_and_versions(jobs: dict[str, Any], project: dict[str, Any]) -> None:
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    lowest = project["project"]["requires-python"].removeprefix(">=")
    assert matrix["python"][0] == lowest and matrix["python"] == sorted(matrix["python"])
    assert {"lint", "tests", "lowest-versions", "wheel", "docs"} <= jobs.keys()
    assert all("timeout-minutes" in job for job in jobs.values())


def test_jobs_may_write_nothing_and_say_that_they_were_not_run() -> None:
    for path in (GITHUB / "workflows").iterdir():
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert "NOT RUN" in text.splitlines()[0]
        assert "secrets." not in text and "pull_request_target" not in text


def test_jobs_run_what_exists(jobs: dict[str, Any], targets: set[str], project: dict[str, Any]) -> None:
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {target for line in commands for target in re.findall(r"\bmake (\w+)", line)}
    assert made == {"lint", "smoke", "docs"} and made <= targets
    extras = {name for line in commands for name in re.findall(r'"\.\[(\w+)\]"', line)}
    assert extras == {"test"} and extras <= project["project"]["optional-dependencies"].keys()


def test_hooks_fetch_nothing_and_run_what_lint_runs() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    programs = {Path(hook["entry"].split()[0]) for hook in hooks}
    assert {path.parent.as_posix() for path in programs} == {".venv/bin"}
    assert {path.name for path in programs} == set(re.findall(r"\$\(BIN\)/(\S+)", lint))


@pytest.mark.parametrize("name", ["fault.yml", "wish.yml"])
def test_forms_of_issues(name: str) -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields) > 1
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_the_recipe_needs_what_the_package_needs(project: dict[str, Any]) -> None:
    text = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    assert "UNTESTED" in text.splitlines()[0]
    recipe = yaml.safe_load(
        re.sub(r"\{%.*?%\}", "", text).replace("{{ version }}", "0").replace("{{ PYTHON }}", "python")
    )
    needed = {}
    for line in recipe["requirements"]["run"]:
        name, _, bounds = line.partition(" ")
        needed[CONDA.get(name, name)] = set(bounds.split(","))
    assert needed.pop("python") == {project["project"]["requires-python"]}
    wanted = [Requirement(text) for text in project["project"]["dependencies"]]
    assert needed == {each.name: {str(bound) for bound in each.specifier} for each in wanted}
    assert sorted(recipe["about"]["license_file"]) == sorted(project["project"]["license-files"])
    scripts = project["project"]["scripts"]
    is_known = "Repository" in project["project"]["urls"]  # the address; until then both files are marked
    assert is_known == ("home" in recipe["about"]) == ("UNKNOWN" not in text)
    assert recipe["build"]["entry_points"] == [f"{name} = {place}" for name, place in scripts.items()]
    assert recipe["about"]["summary"] == project["project"]["description"]


def test_contributing_names_what_exists(targets: set[str]) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bmake (\w+)", page)) - {"and"} <= targets
    for path in re.findall(r"`((?:src|tools|recipe|tests|docs)/[\w/.]*)`", page):
        assert (ROOT / path).exists(), path
    assert (ROOT / "tests" / "t50_quality").is_dir()


@pytest.fixture(scope="module")
def release() -> ModuleType:
    return tool("release")


def test_all_files_name_one_version(release: ModuleType) -> None:
    stated = release.versions(ROOT)
    assert len(stated) == 4 and len(set(stated.values())) == 1, stated


def test_the_package_takes_its_version_from_one_file(release: ModuleType, project: dict[str, Any]) -> None:
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == release.SOURCE


def test_the_lock_has_the_versions_of_development_and_hashes(project: dict[str, Any]) -> None:
    exact = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    exact = {canonicalize_name(name): version for name, version in exact.items()}
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w.-]+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)$", text, re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version, _ in entries}
    assert len(entries) == len(re.findall(r"^\S+==", text, re.MULTILINE)) > 30  # every entry has a hash
    assert {canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]} <= locked.keys()
    assert {name: version for name, version in locked.items() if exact.get(name, version) != version} == {}


@pytest.fixture
def ready(tmp_path: Path, release: ModuleType) -> Path:
    """The files that a release looks at, with a changelog of the version."""
    for name in release.versions(ROOT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"## [{release.versions(ROOT)[release.SOURCE]}] - 2030-01-31\n")
    return tmp_path


def test_a_release_that_fits_together(release: ModuleType, ready: Path) -> None:
    assert release.faults(ready) == []


@pytest.mark.parametrize("name", ["CITATION.cff", "recipe/meta.yaml", "qgis/somareg/metadata.txt"])
def test_versions_that_differ_are_named(release: ModuleType, ready: Path, name: str) -> None:
    version = release.versions(ready)[release.SOURCE]
    path = ready / name
    path.write_text(path.read_text(encoding="utf-8").replace(version, "9.9.9", 1), encoding="utf-8")
    assert release.faults(ready) == [f"{name} says 9.9.9, {release.SOURCE} {version}"]
    path.write_text("nothing\n")
    assert release.faults(ready) == [f"{name} says no version, {release.SOURCE} {version}"]


def test_the_file_that_states_the_version_must_state_one(release: ModuleType, ready: Path) -> None:
    (ready / release.SOURCE).write_text("nothing\n")
    assert len(release.faults(ready)) == 5  # four files, and a changelog of no version


def test_a_release_without_an_address_is_reminded(release: ModuleType, ready: Path) -> None:
    assert release.reminders(ready) == ["[project.urls] of pyproject.toml names no Repository"]
    path = ready / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("[project.urls]", '[project.urls]\nRepository = "x"'))
    assert release.reminders(ready) == []


def test_a_changelog_without_the_version_is_named(release: ModuleType, ready: Path) -> None:
    (ready / "CHANGELOG.md").write_text("## [Unreleased]\n")
    assert [line[:20] for line in release.faults(ready)] == ["CHANGELOG.md has no "]


def test_the_checkout_as_it_is_cannot_be_released(release: ModuleType, tmp_path: Path) -> None:
    assert release.uncommitted(tmp_path) == ["git cannot tell whether all is committed"]
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "old.whl").write_text("")
    with pytest.raises(SystemExit, match="is not empty"):
        release.build(tmp_path, tmp_path / "dist")
