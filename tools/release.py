"""Build a release into dist/: refuses what does not fit together, then sdist, wheel, a smoke test and checksums.

    .venv/bin/python tools/release.py [--no-smoke]

Nothing is tagged and nothing is uploaded; CONTRIBUTING.md tells what comes after.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


SOURCE = "src/somareg/runtime/version.py"
"""The file that states the version; pyproject.toml reads it, the others repeat it."""


def versions(root: Path) -> dict[str, str]:
    """The version that each file names, "" where none is found."""
    places = {
        SOURCE: r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (\S+)$",
        "recipe/meta.yaml": r'set version = "(.+?)"',
        "qgis/somareg/metadata.txt": r"^version=(\S+)$",
    }
    stated = {}
    for name, pattern in places.items():
        match = re.search(pattern, (root / name).read_text("utf-8"), re.MULTILINE)
        stated[name] = match[1] if match else ""
    return stated


def faults(root: Path) -> list[str]:
    """What stands against a release of the files as they are."""
    stated = versions(root)
    version = stated[SOURCE]
    found = [
        f"{name} says {other or 'no version'}, {SOURCE} {version or 'none'}"
        for name, other in stated.items()
        if other != version or not version
    ]
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md has no line '## [{version}] - YYYY-MM-DD'")
    return found


def reminders(root: Path) -> list[str]:
    """What a release can do without, and should not."""
    addresses = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    return [] if "Repository" in addresses else ["[project.urls] of pyproject.toml names no Repository"]


def uncommitted(root: Path) -> list[str]:
    """One line for each file that differs from what is committed."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        return ["git cannot tell whether all is committed"]
    return [f"not committed: {line[3:]}" for line in done.stdout.splitlines()]


def build(root: Path, out: Path) -> list[Path]:
    """sdist and wheel in an empty folder."""
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"error: {out} is not empty; move its files away")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=root, check=True)
    return sorted(out.iterdir())


def main() -> int:
    """Check, build, try, tell."""
    parser = argparse.ArgumentParser(description="Build a release into dist/; see CONTRIBUTING.md.")
    parser.add_argument("--no-smoke", action="store_true", help="do not install the wheel into a clean environment")
    asked = parser.parse_args()
    against = [*faults(ROOT), *uncommitted(ROOT)]
    if against:
        print("\n".join(f"error: {line}" for line in against), file=sys.stderr)
        return 1
    files = build(ROOT, ROOT / "dist")
    if not asked.no_smoke:
        wheel = next(path for path in files if path.suffix == ".whl")
        subprocess.run([str(ROOT / "tools" / "smoke.sh"), str(wheel)], cwd=ROOT, check=True)
    for path in files:
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(ROOT))
    version = versions(ROOT)[SOURCE]
    print("\n".join(f"remember: {line}" for line in reminders(ROOT)))
    print(
        f"next: git tag v{version}; upload the files of dist; address and checksum of the sdist into the conda recipe"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
