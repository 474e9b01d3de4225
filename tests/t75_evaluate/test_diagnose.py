import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from somareg.errors import InputError, OutputError
from somareg.lab.data.batch import PairBatch
from somareg.lab.evaluate import diagnose as D
from somareg.lab.evaluate import diagnose_parts as P
from somareg.lab.evaluate.diagnosis import Spread
from somareg.matching.affine import AffineFit, compose_batch, invert_batch
from somareg.soma.encoder import Encoded
from somareg.soma.fge import FeatureGradientEnhancer, FgeCfg
from somareg.soma.glam.affine_flow import StageEstimate
from somareg.soma.glam.attention import AttentionBlock
from somareg.soma.glam.coarse import CoarseMatches
from somareg.soma.glam.matcher import GlamOutput
from somareg.soma.network import Soma

SIZE = (64, 96)
TURN = torch.tensor([[0.98, -0.05, 3.0], [0.04, 1.02, -2.0]], dtype=torch.float64)


def shift(dx, dy=0.0):
    return torch.tensor([[1.0, 0.0, dx], [0.0, 1.0, dy]], dtype=torch.float64)


def off(truth, dx, dy=0.0):
    """The truth with an error of (dx, dy) moving pixels everywhere."""
    return truth + shift(dx, dy) - shift(0.0)


def stage(name, affine, condition=10.0, refused=False):
    b, none = len(affine), torch.zeros(len(affine), 0)
    return StageEstimate(
        name=name,
        stride=int(name.split("/")[1]),
        affine=affine,
        start=affine,
        points=torch.zeros(b, 0, 2),
        displacement=torch.zeros(b, 0, 2),
        precision=none,
        weight=none,
        condition=torch.full((b,), condition),
        refused=torch.full((b,), refused),
        logits=torch.zeros(b, 0, 9),
        margin=1,
    )


def output(*stages, coarse=None, flow=None):
    return GlamOutput(coarse, tuple(stages), stages[-1].affine, flow, None)


def coarse(affine, refused):
    fit = AffineFit(affine, torch.tensor([5.0, 7.0]), torch.tensor(refused))
    none = torch.zeros(2, 0)
    return CoarseMatches(torch.zeros(0, 2), torch.zeros(2, 0, 2), none, torch.zeros(2, 0, 0), (0, 0), fit)


def phases(points):
    """Feature vectors (..., 2) of length 1 whose angle tells the place, 0.15 rad per pixel."""
    angle = 0.15 * points[..., 0] + 0.11 * points[..., 1]
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def level(affine, stride, size=SIZE):
    """Features (B, 2, h, w) of cells that show the place `affine(pixel)`."""
    y, x = torch.meshgrid(torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij")
    pixels = torch.stack([x, y], -1).double() * stride + (stride - 1) / 2
    places = pixels @ affine[:, None, :, :2].mT + affine[:, None, None, :, 2]
    return phases(places).permute(0, 3, 1, 2).float()


class Fake(nn.Module):
    """Knows the truth; each stage is wrong by a known shift, the way back by another."""

    def __init__(self, truth, errors, back=0.0):
        super().__init__()
        self.truth, self.errors, self.back = truth, errors, back
        self.fge = FeatureGradientEnhancer(8, FgeCfg())
        self.frozen = nn.Dropout().eval()
        self.asked = []

    def encode(self, image, mask, modality):
        sees = torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3) if modality == "sar" else self.truth
        levels = {s: level(sees, s) for s in (2, 4)}
        noise = {s: torch.randn(2, 16, *x.shape[-2:]) for s, x in levels.items()}
        return Encoded(levels, {}, noise, levels, torch.zeros(()))

    def forward(self, reference, reference_mask, moving, moving_mask, modalities):
        assert not self.training
        self.asked.append(modalities)
        self.fge(torch.randn(1, 8, 16, 16))
        if modalities[0] == "sar":
            return output(stage("1/2", off(invert_batch(self.truth), self.back)))
        first, *rest = (off(self.truth, e) for e in self.errors)
        later = [stage(f"1/{s}", a) for s, a in zip((8, 2, 2), rest, strict=False)]
        return output(*later, coarse=coarse(first, [False, True]))


def batch(truth, flow=None):
    optical, sar, mask = torch.zeros(2, 3, *SIZE), torch.zeros(2, 1, *SIZE), torch.ones(2, 1, *SIZE)
    return PairBatch(optical, mask, sar, mask, truth.float(), flow, ("optical", "sar"))


@pytest.fixture
def truth():
    torch.manual_seed(0)
    return torch.stack([TURN, shift(2.0, 1.0)])


# --- parts ---


def test_stage_errors_are_the_known_ones_in_order(truth):
    found = P.stage_errors(
        output(stage("1/8", off(truth, 3, 4)), stage("1/2", off(truth, 1)), stage("1/2", truth)), truth, SIZE
    )
    assert list(found) == ["start", "1/8", "1/2", "1/2 #2"]
    assert float(found["start"][1]) == pytest.approx(5**0.5)
    assert found["1/8"].tolist() == pytest.approx([5.0, 5.0])
    assert found["1/2"].tolist() == pytest.approx([1.0, 1.0])
    assert found["1/2 #2"].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_local_flow_is_applied_before_the_affine_and_scored_against_the_true_flow(truth):
    true_flow = torch.tensor([1.5, -2.0]).reshape(1, 2, 1, 1).expand(2, 2, *SIZE)
    nodes = true_flow[..., : SIZE[0] // 16, : SIZE[1] // 16]
    found = P.stage_errors(output(stage("1/2", truth), flow=nodes), truth, SIZE, flow=true_flow)
    assert float(found["1/2"][1]) == pytest.approx(2.5)
    assert found["local flow"].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_flow_nodes_keep_their_place_on_sizes_that_are_no_multiple():
    """A ramp on nodes 16 px apart is read exactly between them in an image of 100 px, whose last 4 px have no node."""
    x = (torch.arange(6.0) * 16 + 7.5) * 0.1
    flow = torch.stack([x.expand(6, 6), torch.zeros(6, 6)])[None]
    ramp = torch.arange(100.0) * 0.1
    true_flow = torch.stack([ramp.expand(100, 100), torch.zeros(100, 100)])[None]
    eye = torch.eye(2, 3, dtype=torch.float64)[None]
    error = P.stage_errors(output(stage("1/2", eye), flow=flow), eye, (100, 100), flow=true_flow)["local flow"]
    lattice = (torch.arange(16.0) + 0.5) / 16 * 100 - 0.5
    lattice = lattice[lattice * 1.1 <= 99]  # the others leave the moving image
    beyond = (lattice - lattice.clamp(7.5, 87.5)) * 0.1  # beyond the outer nodes the ramp is held
    assert float(error) == pytest.approx(float(beyond.square().mean().sqrt()), rel=1e-3)


def test_an_estimate_that_is_not_finite_has_an_infinite_error(truth):
    broken = truth.clone()
    broken[0, 0, 0] = math.nan
    error = P.stage_errors(output(stage("1/2", broken)), truth, SIZE)["1/2"]
    assert error.tolist() == pytest.approx([math.inf, 0.0], abs=1e-5)


def test_attention_alarms():
    assert P.attention_summary("a", torch.full((100,), 0.01)).alarm == "collapsed"
    few = torch.zeros(1000)
    few[:30] = 1.0  # the mean alone would do at 0.03, and 95 % lie at 0
    assert P.attention_summary("a", few + 0.05).alarm == "collapsed"
    assert P.attention_summary("a", torch.full((100,), 0.99)).alarm == "open"
    assert P.attention_summary("a", torch.rand(1000)).alarm is None
    assert P.attention_summary("a.entropy", torch.full((9,), 0.99)).alarm is None
    assert P.attention_summary("a", torch.zeros(0)).alarm is None


def test_attention_entropy_of_one_some_and_all():
    one, all_ = torch.eye(16)[0], torch.full((16,), 1 / 16)
    four = torch.tensor([0.25] * 4 + [0.0] * 12)
    assert P.attention_entropy(torch.stack([one, four, all_])).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_affine_health_counts_what_diverged():
    affines = torch.stack([shift(500.0), 3.0 * shift(0.0), TURN * torch.tensor([[-1.0], [1.0]]), shift(math.nan)])
    health = P.affine_health("1/2", affines, torch.tensor([1.0, 1e9, 3.0, math.inf]), torch.tensor([0, 1, 0, 0]) > 0)
    assert (health.refused, health.diverged) == (0.25, 0.75)  # a long way off is an error, not a divergence
    assert health.determinant.largest == pytest.approx(9.0)
    assert health.deviation.largest == pytest.approx(8**0.5)
    assert health.condition.largest == math.inf


def test_inconsistency_is_zero_for_the_inverse_and_known_for_a_shift(truth):
    assert P.inconsistency(truth, invert_batch(truth), SIZE).tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    found = P.inconsistency(truth, off(invert_batch(truth), 3.0, 4.0), SIZE)
    assert found.tolist() == pytest.approx([5.0, 5.0])


def test_inconsistency_follows_both_flows(truth):
    there = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(2, 2, 4, 6)
    # x -> A(x + d); back: y -> A^-1(y + e), which is x + d + L^-1 e
    e = -(truth[:, :, :2] @ there[0, :, 0, 0].double())
    back = e[:, :, None, None].expand(2, 2, 4, 6)
    found = P.inconsistency(truth, invert_batch(truth), SIZE, forward_flow=there, backward_flow=back)
    assert found.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    alone = P.inconsistency(truth, invert_batch(truth), SIZE, forward_flow=there)
    assert alone.tolist() == pytest.approx([5**0.5] * 2)


def test_inconsistency_looks_only_where_the_images_overlap_and_is_infinite_without():
    forward, backward = shift(40.0)[None], shift(-40.0)[None]
    # The way back is wrong, but only for moving x < 20: a flow on nodes 16 px apart, and x >= 40 is what is seen.
    flow = torch.zeros(1, 2, 4, 6)
    flow[..., 0] = 9.0
    assert float(P.inconsistency(forward, backward, SIZE, backward_flow=flow)) < 1e-9
    assert float(P.inconsistency(shift(0.0)[None], shift(0.0)[None], SIZE, backward_flow=flow)) > 1
    assert float(P.inconsistency(shift(500.0)[None], shift(-500.0)[None], SIZE)) == math.inf


@pytest.mark.parametrize("stride", [2, 4])
def test_cosine_similarity_finds_the_true_place(truth, stride):
    identity = torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3)
    reference, moving = {stride: level(truth, stride)}, {stride: level(identity, stride)}
    pairs = P.cosine_similarity(reference, moving, truth, stride)
    assert float(pairs.corresponding.mean()) > 0.999
    assert len(pairs.control) == len(pairs.corresponding) and float(pairs.control.mean()) < 0.6
    # One pixel beside the truth must show: a half-pixel slip of the grids would.
    beside = P.cosine_similarity(reference, moving, off(truth, 1.0, 1.0), stride)
    assert float(beside.corresponding.mean()) == pytest.approx(math.cos(0.26), abs=0.01)


def test_cosine_similarity_uses_the_flow_and_the_masks(truth):
    flow = torch.tensor([3.0, 0.0]).reshape(1, 2, 1, 1).expand(2, 2, *SIZE)
    moved = compose_batch(truth, shift(3.0).expand(2, 2, 3))
    identity = torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3)
    reference, moving = {2: level(moved, 2)}, {2: level(identity, 2)}
    assert float(P.cosine_similarity(reference, moving, truth, 2, flow=flow).corresponding.mean()) > 0.99
    assert float(P.cosine_similarity(reference, moving, truth, 2).corresponding.mean()) < 0.95
    reference[2][..., 20:] = 0.0
    mask = torch.ones(2, 1, *SIZE)
    mask[..., 40:] = 0.0
    masked = P.cosine_similarity(reference, moving, truth, 2, flow=flow, reference_mask=mask)
    assert float(masked.corresponding.min()) > 0.9
    nothing = P.cosine_similarity(reference, moving, truth, 2, moving_mask=torch.zeros(2, 1, *SIZE))
    assert len(nothing.corresponding) == len(nothing.control) == 0


def test_spread_counts_nan_as_failure():
    spread = Spread.of(torch.tensor([1.0, 2.0, 3.0, 4.0, math.nan]))
    assert (spread.count, spread.median, spread.largest, spread.mean) == (5, 3.0, math.inf, math.inf)
    assert Spread.of(torch.zeros(0)).count == 0


# --- together ---


def test_diagnosis_of_a_network_with_known_errors(truth):
    network = Fake(truth, [8.0, 2.0, 0.5, 0.25], back=3.0)
    network.train()
    network.frozen.eval()
    found = D.diagnose(network, [batch(truth), batch(truth)])
    assert found.samples == 4
    assert [s.name for s in found.stages] == ["start", "coarse", "1/8", "1/2", "1/2 #2"]
    assert [s.error_px.median for s in found.stages[1:]] == pytest.approx([8.0, 2.0, 0.5, 0.25], rel=1e-4)
    assert found.error_px == pytest.approx([0.25] * 4, rel=1e-4)
    # forward is 0.25 px off in the moving image, the way back another 3 px in the reference
    shifts = invert_batch(truth)[:, :, 0] * 0.25 + torch.tensor([3.0, 0.0])
    assert found.inconsistency_px == pytest.approx([float(s.norm()) for s in shifts] * 2, rel=1e-4)
    assert {a.name: a.refused for a in found.affine} == {"coarse": 0.5, "1/8": 0.0, "1/2": 0.0, "1/2 #2": 0.0}
    assert network.asked == [("optical", "sar"), ("sar", "optical")] * 2
    similar = {s.name: s for s in found.similarity}
    assert similar["after FGE 1/2"].corresponding > 0.99 > similar["after FGE 1/2"].control + 0.3
    assert abs(similar["before FGE 1/2"].corresponding) < 0.05
    assert any("coarse: 50% of the affine fits were refused" in alarm for alarm in found.alarms)


def test_the_network_is_left_as_it_was(truth):
    network = Fake(truth, [1.0, 1.0])
    network.train()
    network.frozen.eval()
    D.diagnose(network, batch(truth))
    assert network.training and network.fge.training and not network.frozen.training
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_collapsed_attention_raises_the_alarm(truth):
    network = Fake(truth, [1.0, 1.0])
    healthy = D.diagnose(network, batch(truth))
    assert {a.name for a in healthy.attention} == {"fge.channel", "fge.spatial"}
    assert not [a for a in healthy.attention if a.alarm]
    nn.init.constant_(network.fge.attention.excite[2].bias, -9.0)
    found = D.diagnose(network, batch(truth))
    assert {a.name: a.alarm for a in found.attention} == {"fge.channel": "collapsed", "fge.spatial": None}
    assert any("fge.channel: attention is collapsed" in alarm for alarm in found.alarms)


def test_a_stage_that_makes_it_worse_raises_the_alarm(truth):
    found = D.diagnose(Fake(truth, [1.0, 0.5, 4.0]), batch(truth))
    assert any(alarm.startswith("1/2: the median error grows from 0.50 to 4.00 px") for alarm in found.alarms)
    assert not any(alarm.startswith("1/8: the median") for alarm in found.alarms)


def test_no_batch_is_an_error(truth):
    with pytest.raises(InputError):
        D.diagnose(Fake(truth, [1.0, 1.0]), [])


def test_the_real_network_shows_every_view():
    torch.manual_seed(0)
    optical, mask = torch.randn(1, 3, 64, 80), torch.ones(1, 1, 64, 80)
    eye = torch.eye(2, 3)[None]
    pair = PairBatch(optical, mask, optical[:, :1].contiguous(), mask, eye, None, ("optical", "sar"))
    network = Soma()
    found = D.diagnose(network, pair)
    blocks = sum(isinstance(module, AttentionBlock) for module in network.modules())
    assert len([a for a in found.attention if a.name.endswith("entropy")]) == blocks > 0
    assert all(0 <= a.weight.q05 <= a.weight.largest <= 1.0001 for a in found.attention)
    assert {f"{view} 1/{s}" for view in ("before FGE", "after FGE", "matched") for s in (2, 4, 8)} <= {
        s.name for s in found.similarity
    }
    assert [s.name for s in found.stages][:2] == ["start", "coarse"] and found.stages[-1].name == "local flow"


# --- the file ---


def test_the_saved_file_is_whole_and_replaced(truth, tmp_path):
    diagnosis = D.diagnose(Fake(truth, [1.0, math.nan]), batch(truth))
    path = tmp_path / "a" / "b" / "diagnosis.json"
    for _ in range(2):
        assert D.save_diagnosis(diagnosis, path) == path
    assert list(path.parent.iterdir()) == [path]
    record = json.loads(path.read_text())
    assert record == diagnosis.to_json()
    assert record["stages"][-1]["error_px"]["median"] is None and record["error_px"] == [None, None]


def test_a_folder_that_cannot_be_written_is_an_output_error(truth, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        D.save_diagnosis(D.diagnose(Fake(truth, [1.0, 1.0]), batch(truth)), tmp_path / "file" / "diagnosis.json")


def test_a_diagnosis_needs_neither_rasterio_nor_matplotlib(truth):
    code = (
        "import sys, somareg.lab.evaluate.diagnose, somareg.lab.evaluate.inside, somareg.lab.train.losses;"
        "assert not {'matplotlib', 'lightning', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    alone = "import sys, somareg.lab.evaluate.diagnose; assert 'rasterio' not in sys.modules"
    subprocess.run([sys.executable, "-c", alone], check=True)
