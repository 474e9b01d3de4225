"""Wrong usage: exit code 2, one line, and the nearest thing that exists."""

from __future__ import annotations

import json

import pytest

from tests.t80_cli.conftest import Cli, FakeApi

WRONG = [
    (["registr", "a", "b"], "unknown command 'registr'. Did you mean 'register'?"),
    (["register", "a", "b", "-o", "c", "--prest", "base"], "unknown option '--prest'. Did you mean '--preset'?"),
    (["register", "a", "b", "-o", "c", "--preset", "bse"], "unknown preset 'bse'. Did you mean 'base'?"),
    (["register", "a", "b", "-o", "c", "--search", "ful"], "unknown search 'ful'. Did you mean 'full'?"),
    (["register", "a", "b", "-o", "c", "--moving-scale", "db"], "unknown moving_scale 'db'. Did you mean 'dB'?"),
    (["register", "a", "b", "-o", "c", "--resampling", "cubik"], "unknown resampling 'cubik'. Did you mean 'cubic'?"),
    (["register", "a", "b", "-o", "c", "--moving-bands", "0,1"], "'0,1' is not a list of band numbers from 1"),
    (["register", "a", "b", "-o", "c", "--search-radius", "-3"], "search_radius_px"),
    (["register", "a", "b", "-o", "c", "--seed", "x"], "--seed"),
    (["register", "a", "b", "-o", "c", "-v", "-q"], "use -v or -q, not both"),
    (["register", "a", "b", "-o", "c", "--progress", "jsn"], "unknown --progress 'jsn'. Did you mean 'json'?"),
    (["register", "a", "b"], "missing option '-o'"),
    (["register", "a"], "missing argument 'REFERENCE'"),
    (["assess", "a", "b", "--preset", "presice"], "unknown preset 'presice'. Did you mean 'precise'?"),
    (["warp", "a", "b", "-o", "c", "--resampling", "cubik"], "unknown resampling 'cubik'. Did you mean 'cubic'?"),
    (["warp", "a", "b", "-o", "c", "--resolution", "natve"], "unknown --resolution 'natve'. Did you mean 'native'?"),
    (
        ["eval", "--data", ".", "--sets", "a", "-o", "c", "--split", "tst"],
        "unknown --split 'tst'. Did you mean 'test'?",
    ),
    (["eval", "--data", ".", "--sets", ",", "-o", "c"], "give at least one name"),
    (["--verison"], "unknown option '--verison'. Did you mean '--version'?"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG, ids=[" ".join(a[:1] + a[-2:]) for a, _ in WRONG])
def test_wrong_usage(cli: Cli, fake_api: FakeApi, arguments: list[str], expected: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert fake_api.calls == []


def test_wrong_usage_as_json(cli: Cli, fake_api: FakeApi) -> None:
    done = cli("register", "a", "b", "-o", "c", "--jsn", "--json")
    document = json.loads(done.out)
    assert done.code == document["error"]["exit_code"] == 2
    assert "Did you mean '--json'" in document["error"]["message"]
