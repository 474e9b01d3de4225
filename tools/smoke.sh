#!/bin/sh
# Smoke test of a release: does the package work where nothing but the package is?
#
#   tools/smoke.sh                builds an sdist from this checkout, and the wheel from the sdist
#   tools/smoke.sh FILE.tar.gz    takes an sdist that exists and builds the wheel from it
#   tools/smoke.sh FILE.whl       takes a wheel that exists
#
# The wheel is installed into a new virtual environment, with the versions of constraints.txt, and used from a folder
# outside of the checkout. PYTHON names the interpreter. All files are made in a temporary folder, which is removed at the
# end.
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
    given=$folder/$(basename -- "$1")
fi
"${PYTHON:-python3}" -m venv "$work/venv"
cd "$work"

pip="venv/bin/python -m pip --disable-pip-version-check --quiet"
if [ $# -eq 0 ]; then
    say "building the sdist"
    "${PYTHON:-python3}" -m venv "$work/build"
    build/bin/python -m pip --disable-pip-version-check --quiet install hatchling --constraint "$root/constraints.txt"
    (cd "$root" && "$work/build/bin/python" -m hatchling build -t sdist -d "$work/dist")
    given=$(echo "$work"/dist/somareg-*.tar.gz)
fi
wheel=$given
case $given in *.tar.gz)
    say "building the wheel from $(basename -- "$given")"
    $pip wheel --no-deps --wheel-dir wheel "$given"
    wheel=$(echo "$work"/wheel/somareg-*.whl)
    ;;
esac
say "installing $(basename -- "$wheel"), $(($(wc -c <"$wheel") / 1024)) KiB"
$pip install "$wheel" --constraint "$root/constraints.txt"
$pip check

say "somareg --version"
venv/bin/somareg --version

say "somareg doctor"
venv/bin/somareg doctor

say "rio somareg --version"
venv/bin/rio somareg --version

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
