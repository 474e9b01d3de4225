"""`somareg view` where it cannot show anything."""

from __future__ import annotations

from pathlib import Path

import pytest

import somareg.view
from somareg.errors import UnsupportedError


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_one_line_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(somareg.view, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(UnsupportedError, match=r"pip install 'somareg\[view\]'") as told:
        somareg.view.need_view()
    assert "\n" not in str(told.value)


def test_a_folder_without_a_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from somareg.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["view", str(tmp_path), "--no-browser"])
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (1, "")
    assert err.count("\n") == 1 and "holds no result" in err
