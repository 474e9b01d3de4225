#!/bin/sh
# Smoke test of the wheel: does it work where nothing but the wheel is?
#
#   tools/smoke.sh              builds the wheel from this checkout
#   tools/smoke.sh FILE.whl     takes one that is built already
#
# Installs it into a new virtual environment, with the versions of constraints.txt, and uses it from a folder outside of
# the checkout. PYTHON names the interpreter. Everything is made in a temporary folder, which goes at the end.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

started=$(date +%s)
say() {
    printf '\n== %s (after %s s)\n' "$*" "$(($(date +%s) - started))"
}

if [ $# -gt 0 ]; then
    folder=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)
    wheel=$folder/$(basename -- "$1")
fi
"${PYTHON:-python3}" -m venv "$work/venv"
cd "$work"

pip="venv/bin/python -m pip --disable-pip-version-check --quiet"
if [ $# -eq 0 ]; then
    say "building the wheel"
    $pip wheel --no-deps --wheel-dir dist "$root"
    wheel=$(echo "$work"/dist/somareg-*.whl)
fi
say "installing $(basename -- "$wheel"), $(($(wc -c <"$wheel") / 1024)) KiB"
$pip install "$wheel" --constraint "$root/constraints.txt"
$pip check

say "somareg --version"
venv/bin/somareg --version

say "somareg doctor"
venv/bin/somareg doctor

say "somareg demo"
venv/bin/somareg demo -o demo

say "the demo pair is go, by the weights of the wheel"
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import somareg

assert "site-packages" in somareg.__file__, somareg.__file__
report = json.loads(Path("demo/report.json").read_text())
assert report["verdict"]["decision"] == "go", report["verdict"]
assert report["settings"]["model_used"] == "compact", report["settings"]
for name in ("aligned.tif", "displacement.tif", "tie_points.geojson", "gcps.points", "aligned.qgz", "displacement.qml", "report.html"):
    assert Path("demo", name).stat().st_size > 1000, name
PYTHON

say "passed"
