"""The cheating baseline: reads the position of a warped image's black frame, and nothing else.

Benchmarks that warp the moving image with `cv2.warpAffine` leave a constant frame whose inner edges are the warped
edges of the image, so the answer can be read without any matching. In a border-free benchmark there is no frame, and
this method must score exactly like identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, ByteImage, Known, Prediction, affine_displacement, grey
from somareg.types import BoolArray, FloatArray

_MIN_FRAME = 0.01  # least share of the image for a dark patch at the edge to be a frame
_MIN_FILL = 0.97  # a warped rectangle fills its convex hull, the surroundings of a lake do not
_MIN_EXPLAINED = 0.8  # share of the inner contour on straight lines
_LINE_TOLERANCE_PX = 1.5
_MIN_LINE_PX = 12
_RIGHT_ANGLE_TOLERANCE_DEG = 3.0
_RIM_PX = 3.0  # largest difference between the frame and the one that the solution would leave
_MAX_DISAGREEMENT = 0.1  # largest share of the frame beyond that


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A straight edge: its unit normal pointing into the frame, its middle (x, y) and its length in points."""

    normal: FloatArray
    middle: FloatArray
    length: int


class BorderOnly:
    """Solves rotation, scale and shift from the frame's inner edges; identity when there is no frame."""

    name = "border_only"

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        matrix = affine_from_frame(grey(moving))
        if matrix is None:
            return Prediction(np.zeros((2, *reference.shape[-2:]), np.float32))
        return Prediction(affine_displacement(matrix, reference.shape))


def affine_from_frame(moving: ByteImage) -> NDArray[np.float64] | None:
    """(2, 3) reference-to-moving matrix read from the frame of a (H, W) image, or None without a frame."""
    edge = np.concatenate([moving[0], moving[-1], moving[:, 0], moving[:, -1]])
    for value in dict.fromkeys((0, int(np.bincount(edge).argmax()))):
        inside = _image_area(moving == value)
        if inside is None:
            continue
        lines, explained = _lines(_inner_contour(inside), inside)
        if lines and explained >= _MIN_EXPLAINED:
            matrix = _solve(lines, moving.shape)
            if _leaves(matrix, ~inside):
                return matrix
    return None


def _leaves(matrix: NDArray[np.float64], frame: BoolArray) -> bool:
    """Whether warping by `matrix` leaves this frame, unlike a straight dark patch of ground."""
    height, width = frame.shape
    frame = frame[::2, ::2]
    rows, cols = np.mgrid[:height:2, :width:2]
    source = AffineTransform(matrix).inverse(np.stack([cols.ravel(), rows.ravel()], axis=-1))
    half = np.array([width, height]) / 2
    beyond = (np.abs(source - (half - 0.5)) - half).max(axis=1).reshape(frame.shape)  # > 0 outside the image
    wrong = (frame & (beyond < -_RIM_PX)) | (~frame & (beyond > _RIM_PX))
    return bool(wrong.sum() < _MAX_DISAGREEMENT * frame.sum())


def _image_area(constant: BoolArray) -> BoolArray | None:
    """Pixels outside of the frame (constant parts at the array's edge), None when they form no rectangle."""
    _, labels = cv2.connectedComponents(constant.astype(np.uint8), connectivity=4)
    at_edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    sizes = np.bincount(labels.ravel(), minlength=int(labels.max()) + 1)
    frame = np.isin(labels, [label for label in np.unique(at_edge) if label and sizes[label] > 20])
    if not _MIN_FRAME < float(frame.mean()) < 0.95:
        return None
    inside: BoolArray = ~frame
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(contours))
    filled = cv2.fillConvexPoly(np.zeros(inside.shape, np.uint8), hull, 1).astype(bool)
    return inside if inside.sum() > _MIN_FILL * filled.sum() else None


def _inner_contour(inside: BoolArray) -> FloatArray:
    """(N, 2) contour points of the image area that do not lie on the edge of the array."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points: FloatArray = max(contours, key=len).reshape(-1, 2).astype(np.float64)
    height, width = inside.shape
    x, y = points.T
    inner: FloatArray = points[(x >= 2) & (y >= 2) & (x <= width - 3) & (y <= height - 3)]
    return inner


def _lines(points: FloatArray, inside: BoolArray) -> tuple[list[_Line], float]:
    """Up to four straight edges, longest first, and the share of the points that lie on them."""
    rng = np.random.default_rng(0)
    total, rest, lines = len(points), points, list[_Line]()
    middle = np.argwhere(inside)[:, ::-1].mean(axis=0)
    while len(lines) < 4 and len(rest) >= _MIN_LINE_PX:
        on_line = _longest_line(rest, rng)
        if on_line.sum() < _MIN_LINE_PX:
            break
        line = _fit(rest[on_line], middle)
        if lines and not _square_to(line, lines[0]):
            break
        lines.append(line)
        rest = rest[~on_line]
    return lines, 1 - len(rest) / total if total else 0.0


def _longest_line(points: FloatArray, rng: np.random.Generator) -> BoolArray:
    """Points on the line through two of them that contains the most points."""
    first, second = points[rng.integers(0, len(points), (2, 300))]
    along = second - first
    length = np.hypot(along[:, 0], along[:, 1])
    first, along = first[length > 5], along[length > 5] / length[length > 5, None]
    if not len(first):
        return np.zeros(len(points), bool)
    away = points[None] - first[:, None]
    near = np.abs(away[..., 0] * along[:, None, 1] - away[..., 1] * along[:, None, 0]) < _LINE_TOLERANCE_PX
    best: BoolArray = near[near.sum(axis=1).argmax()]
    return best


def _fit(points: FloatArray, middle: FloatArray) -> _Line:
    """Total least squares line, its normal pointing away from `middle`."""
    centre = points.mean(axis=0)
    normal = np.linalg.svd(points - centre, full_matrices=False)[2][1]
    if normal @ (centre - middle) < 0:
        normal = -normal
    return _Line(normal, centre, len(points))


def _square_to(line: _Line, first: _Line) -> bool:
    """Whether two edges are parallel or at a right angle."""
    angle = np.rad2deg(np.arctan2(*line.normal[::-1]) - np.arctan2(*first.normal[::-1]))
    off = abs((angle + 45) % 90 - 45)
    return bool(off < _RIGHT_ANGLE_TOLERANCE_DEG)


def _solve(lines: list[_Line], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Rotation, scale (when opposite edges are seen, else 1) and shift from the edges.

    An edge of the reference with outward normal n, half a side h from the centre, becomes the line
    `(R n) @ (q - centre) == scale * h + (R n) @ shift`. The rotation is taken within +-45 degrees.
    """
    half = np.array([shape[1], shape[0]]) / 2  # on average the outermost non-black pixel lies here
    centre = (np.array([shape[1], shape[0]]) - 1) / 2
    angles = np.array([np.arctan2(line.normal[1], line.normal[0]) for line in lines])
    weights = np.array([line.length for line in lines], float) ** 3  # the precision of a direction over n points
    turn = np.angle((weights * np.exp(4j * angles)).sum()) / 4
    sides = np.rint((angles - turn) / (np.pi / 2)).astype(int) % 4  # 0 right, 1 bottom, 2 left, 3 top
    outward = turn + sides * np.pi / 2  # one rotation for all, because the direction of a short edge is inaccurate
    normals = np.column_stack([np.cos(outward), np.sin(outward)])
    reach = half[sides % 2]
    levels = (normals * (np.stack([line.middle for line in lines]) - centre)).sum(axis=1)
    opposite = any({side, (side + 2) % 4} <= set(sides.tolist()) for side in (0, 1))
    if opposite:
        scale, *shift = np.linalg.lstsq(np.column_stack([reach, normals]), levels, rcond=None)[0]
    else:
        scale, shift = 1.0, list(np.linalg.lstsq(normals, levels - reach, rcond=None)[0])
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, centre + np.asarray(shift) - linear @ centre])
