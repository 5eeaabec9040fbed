"""Learnt positions go where they belong on another grid of tokens, or are left out with why."""

import math

import pytest
import torch

from mim import architectures
from mim.transfer import load_pretrained
from mim.unetr import UNETRSettings
from mim.vit import ViTSettings
from mim.vit_classifier import ViTClassifierSettings
from mim.weight_shapes import resize_positions

WIDTH = 24
EMBEDDING = "patch_embedding.position_embeddings"


def config(grid, kind=ViTSettings, edge=4):
    """A network's configuration for images of ``grid`` tokens."""
    patch = (edge,) * len(grid)
    depth = {} if kind is UNETRSettings else {"depth": 1}
    settings = kind(patch=patch, width=WIDTH, heads=2, **depth)
    return architectures.configure(settings, {}, tuple(edge * n for n in grid), 1, 2)


def own_file(path, grid):
    """A checkpoint of this program; its positions."""
    chosen = config(grid)
    model = architectures.build(chosen)
    content = {"format": 1, "metadata": {"network": chosen}, "model": model.state_dict()}
    torch.save(content, path)
    return model.patch_embedding.position_embeddings.detach()


def foreign_file(path, tokens, kernel=(4, 4, 4)):
    """A state dict of timm's names that does not say how its ``tokens`` lie; its positions."""
    state = {
        "patch_embed.proj.weight": torch.randn(WIDTH, 1, *kernel),
        "pos_embed": torch.randn(1, tokens, WIDTH),
    }
    torch.save(state, path)
    return state["pos_embed"]


def resized(positions, old, new):
    """The positions at the places of another grid, worked out one axis at a time."""
    old = (1,) * (len(new) - len(old)) + tuple(old)
    field = positions[0].reshape(*old, WIDTH)
    for axis, size in enumerate(new):
        place = ((torch.arange(size) + 0.5) * old[axis] / size - 0.5).clamp(0, old[axis] - 1)
        below = place.floor().long()
        above = (below + 1).clamp(max=old[axis] - 1)
        share = (place - below).view(-1, *(1 for _ in range(len(new) - axis)))
        first, second = field.index_select(axis, below), field.index_select(axis, above)
        field = (1 - share) * first + share * second
    return field.reshape(1, -1, WIDTH)


def load(path, chosen):
    model = architectures.build(chosen)
    before = dict(model.named_parameters())
    name = next(name for name in before if name.endswith(EMBEDDING))
    fresh = before[name].detach().clone()
    report = load_pretrained(model, path, ("encoder",))
    return report, name, model.get_parameter(name).detach(), fresh


@pytest.mark.parametrize("kind", [ViTSettings, UNETRSettings, ViTClassifierSettings])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((4, 8, 8), (2, 4, 4)),  # as many tokens as a picture of 16 x 16
        ((2, 4, 4), (4, 8, 8)),
        ((4, 6, 6), (3, 3, 5)),
        ((4, 4, 4), (1, 8, 8)),  # the same number in another order
    ],
)
def test_positions_lie_as_the_checkpoint_of_this_program_says(tmp_path, kind, old, new):
    positions = own_file(tmp_path / "last.pt", old)
    report, name, found, _ = load(tmp_path / "last.pt", config(new, kind))
    times = ["×".join(map(str, grid)) for grid in (old, new)]
    assert report.adapted[name] == f"positions of {times[0]} tokens resized to {times[1]}"
    assert torch.allclose(found, resized(positions, old, new), atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), (6, 10)), ((6, 10), (8, 8)), ((8, 8), (2, 4, 4))]
)
def test_positions_of_pictures_are_those_of_a_square_or_not(tmp_path, old, new):
    positions = own_file(tmp_path / "last.pt", old)
    report, name, found, _ = load(tmp_path / "last.pt", config(new, ViTClassifierSettings))
    assert name in report.adapted
    assert torch.allclose(found, resized(positions, old, new), atol=1e-5)


def test_positions_of_the_same_grid_arrive_as_they_are(tmp_path):
    positions = own_file(tmp_path / "last.pt", (2, 4, 4))
    report, name, found, _ = load(tmp_path / "last.pt", config((2, 4, 4), UNETRSettings))
    assert name in report.loaded and torch.equal(found, positions)


@pytest.mark.parametrize(
    ("tokens", "kernel", "old", "new"),
    [
        (196, (4, 4), (14, 14), (6, 5)),
        (197, (4, 4), (14, 14), (2, 7, 7)),  # with a class token
        (64, (4, 4), (8, 8), (4, 4, 4)),  # the kernel says that these are pictures
        (64, (4, 4, 4), (4, 4, 4), (2, 2, 2)),
        (27, (4, 4, 4), (3, 3, 3), (2, 4, 4)),  # can be nothing but a cube
    ],
)
def test_positions_of_other_programs_are_taken_where_only_one_grid_can_be(
    tmp_path, tokens, kernel, old, new
):
    positions = foreign_file(tmp_path / "vit.pth", tokens, kernel)
    report, name, found, _ = load(tmp_path / "vit.pth", config(new, ViTClassifierSettings))
    assert name in report.adapted
    without_class = positions[:, -math.prod(old) :]
    assert torch.allclose(found, resized(without_class, old, new), atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "kernel", "new"),
    [
        (256, (4, 4, 4), (2, 4, 4)),  # 4 x 8 x 8 or others; no picture of 16 x 16
        (144, (4, 4, 4), (4, 4, 4)),
        (512, (4, 4, 4), (2, 4, 4)),  # 8 x 8 x 8 or 2 x 16 x 16
        (60, (4, 4), (8, 8)),
    ],
)
def test_positions_that_may_lie_in_several_ways_are_left_out(tmp_path, tokens, kernel, new):
    foreign_file(tmp_path / "vit.pth", tokens, kernel)
    report, name, found, fresh = load(tmp_path / "vit.pth", config(new, ViTClassifierSettings))
    assert report.skipped[name] == f"it is not known where the {tokens} positions of the file lie"
    assert torch.equal(found, fresh)


def test_positions_of_a_volume_are_none_for_a_picture(tmp_path):
    own_file(tmp_path / "last.pt", (4, 8, 8))
    report, name, *_ = load(tmp_path / "last.pt", config((6, 6), ViTClassifierSettings))
    assert "positions of a volume 4×8×8 for an image 6×6" in report.skipped[name]


def test_positions_keep_their_place_when_the_grid_changes():
    z, y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (4, 4, 4)), indexing="ij")
    positions = torch.stack((z, y, x), -1).reshape(1, -1, 3) / 4
    finer = resize_positions(positions, (4, 4, 4), (2, 8, 4)).reshape(2, 8, 4, 3)
    assert torch.allclose(finer[:, 0, 0, 0], torch.tensor([0.25, 0.75]))
    assert torch.allclose(finer[0, 2:6, 0, 1], (torch.arange(2, 6) + 0.5) / 8)
    assert torch.allclose(resize_positions(positions, (4, 4, 4), (4, 4, 4)), positions)


def test_imagenet_vit_of_timms_names_fills_the_classifier_of_pictures(tmp_path):
    """All of timm's ViT with biases, for pictures of one channel and another size."""
    settings = ViTClassifierSettings(
        patch=(16, 16), width=WIDTH, depth=2, heads=2, qkv_bias=True, drop_path=0.1
    )
    target = architectures.build(architectures.configure(settings, {}, (64, 96), 1, 2))
    state = {"cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, 197, WIDTH)}
    state |= {"patch_embed.proj.weight": torch.randn(WIDTH, 3, 16, 16)}
    state |= {f"{name}.bias": torch.randn(WIDTH) for name in ("patch_embed.proj", "norm")}
    state |= {"norm.weight": torch.randn(WIDTH), "head.weight": torch.randn(1000, WIDTH)}
    for block in range(2):
        for layer, (rows, columns) in {
            "norm1": (WIDTH, None), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH, None), "mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items():  # fmt: skip
            shape = (rows, columns) if columns else (rows,)
            state[f"blocks.{block}.{layer}.weight"] = torch.randn(shape)
            state[f"blocks.{block}.{layer}.bias"] = torch.randn(rows)
    torch.save(state, tmp_path / "vit.pth")
    report = load_pretrained(target, tmp_path / "vit.pth", ("encoder",))
    assert report.shares["encoder"] == 1 and set(report.missing) == {"head.weight", "head.bias"}
    assert report.adapted == {
        "vit.patch_embedding.patch_embeddings.weight": "3 to 1 input channels",
        "vit.patch_embedding.position_embeddings": "positions of 14×14 tokens resized to 4×6",
    }
    block, old = target.vit.blocks[1], "blocks.1."
    assert torch.equal(block.attn.qkv.bias, state[f"{old}attn.qkv.bias"])
    assert torch.equal(block.attn.out_proj.weight, state[f"{old}attn.proj.weight"])
    assert torch.equal(block.mlp.linear1.weight, state[f"{old}mlp.fc1.weight"])
    assert torch.equal(target.vit.norm.weight, state["norm.weight"])
    kernel = target.vit.patch_embedding.patch_embeddings.weight
    assert torch.allclose(kernel[:, 0], state["patch_embed.proj.weight"].sum(1), atol=1e-5)
    found = target.vit.patch_embedding.position_embeddings
    assert torch.allclose(found, resized(state["pos_embed"][:, 1:], (14, 14), (4, 6)), atol=1e-5)
