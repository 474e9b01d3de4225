"""The server: only this machine, only with the token, only what it means to give."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from somareg.view import Scene, Server, find_folder, make_app
from somareg.view.guard import HEADERS

from .conftest import PORT, SIDE, TOKEN, Asked, Made

HOST = f"http://127.0.0.1:{PORT}"
PAGES = ("", "scene.json", "assets/view.js", "assets/ol/ol.js", "tiles/reference/0/0/0.png")


def test_the_page_says_what_the_result_says(ask: Asked, georeferenced: Made) -> None:
    page: Any = ask("")
    headline = georeferenced.result.verdict.headline
    assert "expected error" in headline
    worst = georeferenced.result.quality.worst_place
    assert worst and headline.endswith(worst)
    assert page.text.count(html.escape(headline)) == page.text.count(html.escape(worst)) == 1


def test_no_go_claims_nothing_even_where_an_earlier_version_did(georeferenced: Made, tmp_path: Path) -> None:
    """Its files still tell of certainty and error."""
    folder = shutil.copytree(georeferenced.folder, tmp_path / "out")
    report = json.loads((folder / "report.json").read_text())
    assert report["error_map"]["places"]
    report["verdict"] = {"decision": "no-go", "probability": 0.03, "reasons": ["It fails."]}
    (folder / "report.json").write_text(json.dumps(report))
    with Scene(find_folder(folder)) as scene:
        client = TestClient(make_app(scene, TOKEN, PORT), base_url=HOST)
        assert list(client.get(f"/{TOKEN}/scene.json").json()["layers"]) == ["local", "residual"]
        assert client.get(f"/{TOKEN}/tiles/error/0/0/0.png").status_code == 404
        page = client.get(f"/{TOKEN}/").text
        arrows = scene.arrows.over((0, 0, SIDE, SIDE), 30)["arrows"]
    assert "the error is not known" in page
    for claim in ("Look here first", 'class="place"', "show-certainty", georeferenced.result.quality.worst_place):
        assert claim not in page
    assert arrows and not np.array(arrows)[:, 4].any()


def test_everything_that_the_page_names_is_there_and_local(ask: Asked) -> None:
    page: Any = ask("")
    assert page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(names) >= 7
    for name in names:
        assert name.startswith(("assets/", "data:,"))
        if name.startswith("assets/"):
            answer: Any = ask(name)
            assert answer.status_code == 200 and len(answer.content) > 500
    for name in ("view.js", "compare.js", "marks.js", "view.css", "base.css", "compare.css"):
        text: Any = ask(f"assets/{name}").text  # type: ignore[attr-defined]
        assert not re.search(r"https?://", text)
    assert not re.search(r"\son\w+=|\sstyle=", page.text), "the policy would block it"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    "before", ["", "wrong/", f"{TOKEN}x/", f"{TOKEN[:-1]}/", f"x/{TOKEN}/", f"/{TOKEN}/", f"{TOKEN.upper()}/"]
)
def test_without_the_token_there_is_nothing(ask: Asked, path: str, before: str) -> None:
    answer = ask.client.get(f"{HOST}/{before}{path}")
    assert (answer.status_code, answer.text) == (404, "not found\n")


@pytest.mark.parametrize("host", ["example.org", "example.org:8000", "127.0.0.1", "127.0.0.1:9", "0.0.0.0:8000", ""])
def test_another_host_name_is_refused(ask: Asked, host: str) -> None:
    assert ask("", headers={"host": host}).status_code == 404  # type: ignore[attr-defined]


def test_localhost_is_the_same_machine(ask: Asked) -> None:
    assert ask("", headers={"host": f"localhost:{PORT}"}).status_code == 200  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_is_only_read(ask: Asked, method: str) -> None:
    assert ask.client.request(method, f"/{TOKEN}/").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "assets/../server.py",
        "assets/%2e%2e/server.py",
        "assets/..%2fserver.py",
        "assets/ol/../../page.py",
        "assets//etc/passwd",
        "assets/%2Fetc%2Fpasswd",
        "assets/ol",
        "assets/",
        "../report.json",
        "report.json",
        "tiles/..%2f..%2freport.json/0/0/0.png",
        "tiles/nothing/0/0/0.png",
        "tiles/reference/9/0/0.png",
        "tiles/reference/0/1/0.png",
        "tiles/reference/-1/0/0.png",
        "points/999999.json",
        "points/-1.json",
        "points.json",
        "points.json?bounds=0,0,nan,5",
        "points.json?bounds=0,0,5",
        "arrows.json?bounds=0,0,9,9",
        "arrows.json?bounds=0,0,9,9&spacing=inf",
        "arrows.json?bounds=0,0,9,9&spacing=9&part=other",
    ],
)
def test_what_is_not_meant_to_be_given_is_not_found(ask: Asked, path: str) -> None:
    answer: Any = ask(path)
    assert (answer.status_code, answer.text) == (404, "not found\n")


@pytest.mark.parametrize("path", [*PAGES, "nothing", "tiles/nothing/0/0/0.png"])
def test_every_answer_carries_the_policy(ask: Asked, path: str) -> None:
    for answer in (ask(path), ask.client.get(f"/wrong/{path}")):
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value]  # type: ignore[attr-defined]
    assert "default-src 'none'" in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_a_tile_is_a_png_transparent_outside_the_image(ask: Asked, opened: Scene) -> None:
    answer: Any = ask("tiles/reference/1/1/1.png")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (256, 256, 4)
    rest = SIDE - 256
    assert (picture[:rest, :rest, 3] == 255).all()
    assert not picture[rest:, :, 3].any() and not picture[:, rest:, 3].any()
    colours, mask = opened.tile("reference", opened.pyramid.tile(1, 1, 1))
    np.testing.assert_array_equal(picture[..., 2::-1][mask], colours[mask])


def test_points_and_their_figures(ask: Asked, georeferenced: Made) -> None:
    ties = georeferenced.result.tie_points
    answer: Any = ask(f"points.json?bounds=0,0,{SIDE},{SIDE}")
    told = answer.json()
    assert told["total"] == len(ties) == len(told["points"])
    number, x, y, _, kept = told["points"][3]
    np.testing.assert_allclose((x, y), ties.reference_xy[number], atol=0.01)
    assert kept == ties.inlier[number]
    one: Any = ask(f"points/{number}.json")
    rows = dict(one.json()["rows"])
    assert rows["Displacement, right"].replace("−", "-").startswith(f"{ties.displacement[number][0]:.2f} px (")
    assert rows["Reference pixel"] == f"{x:.1f}, {y:.1f}"
    none: Any = ask("points.json?bounds=-90,-90,-50,-50")
    assert none.json() == {"points": [], "total": 0}


def test_arrows_are_the_displacement_and_do_not_move_with_the_view(ask: Asked, georeferenced: Made) -> None:
    all_of_it: Any = ask(f"arrows.json?bounds=-50,-50,{SIDE},{SIDE}&spacing=40")
    told = all_of_it.json()
    table = np.array(told["arrows"])
    assert len(table) >= 36 and told["factor"] > 0 and " px" in told["key"]
    xy = table[:, :2]
    np.testing.assert_allclose(table[:, 2:4], georeferenced.result.correction(xy) - xy, atol=2e-3)
    part: Any = ask("arrows.json?bounds=90,90,210,210&spacing=40")
    assert {tuple(row[:2]) for row in part.json()["arrows"]} < {tuple(row[:2]) for row in told["arrows"]}
    assert part.json()["factor"] == told["factor"]


def test_a_damaged_image_is_told_and_does_not_end_the_server(opened: Scene, ask: Asked, monkeypatch: Any) -> None:
    from somareg.errors import ReadError

    def damaged(*_: object) -> None:
        raise ReadError("reference image x.tif is truncated")

    monkeypatch.setattr(opened.images["reference"], "picture", damaged)
    client = TestClient(make_app(opened, TOKEN, PORT), base_url=HOST, raise_server_exceptions=False)
    answer = client.get(f"/{TOKEN}/tiles/reference/0/0/0.png")
    assert (answer.status_code, answer.text) == (500, "reference image x.tif is truncated\n")
    assert client.get(f"/{TOKEN}/tiles/after/0/0/0.png").status_code == 200


def test_it_listens_on_the_loopback_alone_and_tokens_differ(opened: Scene) -> None:
    with Server(opened) as one, Server(opened) as other:
        assert one._socket.getsockname()[0] == "127.0.0.1"
        assert one.token != other.token and len(one.token) >= 32
        thread = threading.Thread(target=one.run)
        thread.start()
        line = http.client.HTTPConnection("127.0.0.1", one.port, timeout=20)
        line.request("GET", f"/{one.token}/scene.json")
        answer = line.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["width"] == SIDE
        assert "server" not in {name.lower() for name, _ in answer.getheaders()}
        line.close()
        one.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_a_port_that_is_taken(opened: Scene) -> None:
    from somareg.errors import UnsupportedError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UnsupportedError, match="give another --port"):
            Server(opened, taken.getsockname()[1])


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_command_serves_until_ctrl_c_and_ends_cleanly(georeferenced: Made) -> None:
    command = [sys.executable, "-m", "somareg", "view", str(georeferenced.folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32}/)", url)
        assert found, process.stderr
        line = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        line.request("GET", found[2])
        assert line.getresponse().status == 200
        line.close()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "error" not in err


def test_torch_is_not_loaded(georeferenced: Made) -> None:
    script = (
        "import sys; from somareg.view import Scene, Server, find_folder\n"
        f"with Scene(find_folder({str(georeferenced.folder)!r})) as s, Server(s): s.warm_up()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_find_folder_errors(tmp_path: Path, georeferenced: Made) -> None:
    from somareg.errors import ReadError

    with pytest.raises(ReadError, match=r"holds no result \(report.json is missing\)"):
        find_folder(tmp_path)
    (tmp_path / "pair").symlink_to(georeferenced.folder)
    with pytest.raises(ReadError, match="1 of them inside, give one"):
        find_folder(tmp_path)
    with pytest.raises(ReadError, match="does not exist"):
        find_folder(georeferenced.folder, moving=tmp_path / "gone.tif")
    assert find_folder(georeferenced.folder / "report.html").path == georeferenced.folder
