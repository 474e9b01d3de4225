from pathlib import Path

import cv2
import numpy as np
import pytest

from somareg.errors import InputError, ReadError
from somareg.lab.data import list_pairs, load_pair


def test_rows_are_chosen_by_set_and_role(data_dir):
    assert [e.name for e in list_pairs(data_dir, {"mini"}, {"test"})] == ["p0.png", "p1.png", "p2.png"]
    assert len(list_pairs(data_dir)) == 4 and list_pairs(data_dir, {"other"}) == []
    assert list_pairs(data_dir)[0].offset == (1.25, -0.75)


def test_pixels_keep_their_band_order(data_dir):
    pair = load_pair(data_dir, list_pairs(data_dir)[0])
    assert pair.sar.shape == (260, 300) and pair.optical.shape == (3, 260, 300)
    np.testing.assert_array_equal(pair.optical[1], pair.optical[0] // 2)
    assert pair.valid.all()


def test_red_is_the_first_band(data_dir):
    entry = list_pairs(data_dir)[0]
    path = data_dir / "mini" / "optical" / entry.name
    image = cv2.imread(str(path))
    image[..., 2] = 200  # OpenCV's third is red
    cv2.imwrite(str(path), image)
    assert (load_pair(data_dir, entry).optical[0] == 200).all()


def test_filled_corners_are_nodata_and_content_is_not(data_dir):
    entry = list_pairs(data_dir)[1]
    valid = load_pair(data_dir, entry).valid
    rows, cols = np.mgrid[:260, :300]
    assert not valid[cols + rows < 60].any()
    assert valid[cols + rows > 70].all()

    path = data_dir / "mini" / "sar" / "p0.png"
    sar = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    sar[50:110, 60:120] = 255  # a bright town inside the image
    sar[::2, :40] = 255  # saturated speckle at the edge
    cv2.imwrite(str(path), sar)
    assert load_pair(data_dir, list_pairs(data_dir)[0]).valid.all()


def test_a_mask_file_is_honoured(data_dir):
    mask = np.full((260, 300), 255, np.uint8)
    mask[:, 200:] = 0
    (data_dir / "mini" / "mask").mkdir()
    cv2.imwrite(str(data_dir / "mini" / "mask" / "p0.png"), mask)
    np.testing.assert_array_equal(load_pair(data_dir, list_pairs(data_dir)[0]).valid, mask > 0)


def test_bad_folders_are_named(data_dir, tmp_path):
    with pytest.raises(ReadError, match=r"pairs\.csv not found"):
        list_pairs(tmp_path)
    entry = list_pairs(data_dir)[0]
    sar = data_dir / "mini" / "sar" / "p0.png"
    cv2.imwrite(str(sar), np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=r"p0\.png is \(10, 10\)"):
        load_pair(data_dir, entry)
    sar.write_bytes(b"")
    with pytest.raises(ReadError, match="not an image"):
        load_pair(data_dir, entry)
    sar.unlink()
    with pytest.raises(ReadError, match="not found"):
        load_pair(data_dir, entry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set,name\n", "column 'role' is missing"),
        ("set,name,role,group,width,height,dx,dy\na,b,c,d,x,1,,\n", "csv:2: bad"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises((ReadError, InputError), match=message):
        list_pairs(tmp_path)
