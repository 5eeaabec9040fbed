"""Speed of pre-training: the step, the loader and the masked norm, against what others use.

    python benchmarks/pretrain.py [--only mae loader norm] [--seconds 15]

mae      mask, forward and backward of a ViT-B masked auto-encoder (crops of 96³, patches of 16³,
         75 % hidden, batch 2) against MONAI's MaskedAutoEncoderViT of equal shape in float32: ours
         in float32, in bfloat16 (MONAI's stops there with a type error), and in bfloat16 with a
         decoder of one block instead of eight; ``whole_step_`` adds the clipped update of the
         weights (torch's fused AdamW for MONAI), which is where ours renews its bfloat16 copies
loader   one random 96³ crop of a 512 × 512 × 200 CT: from the cache, against reading the .nii.gz
norm     masked instance norm against torch's dense one, both compiled, forward and backward

Peers take turns with ours, so that other load meets both; a figure is the ratio of the fastest
runs. Uses all cores; close other programs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from mim.data import draw_crops  # noqa: E402
from mim.mae import MAESettings, MaskedAutoencoderViT  # noqa: E402
from mim.masked_norm import masked_instance_norm  # noqa: E402
from mim.masking import draw_mask  # noqa: E402
from mim.patches import patchify  # noqa: E402
from mim.vit import VisionTransformer, ViTConfig  # noqa: E402
from mim.weight_copies import WeightCopies  # noqa: E402

SIZE, PATCH, RATIO, BATCH = (96, 96, 96), (16, 16, 16), 0.75, 2
DECODER = {"decoder_width": 480, "decoder_heads": 8}
CLIP = 1.0
NORMS = ((32, 80), (64, 40), (128, 20))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"mae": mae, "loader": loader, "norm": norm}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--seconds", type=float, default=15, help="for each thing that is timed")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    result = {"threads": torch.get_num_threads()}
    for name in arguments.only:
        result |= parts[name](arguments.seconds)
    print(json.dumps(result))
    return 0


def mae(seconds: float) -> dict[str, float]:
    """Seconds of a forward and backward pass of MONAI's network and of ours, and their ratios; of
    whole steps, which update the weights too, the ratios."""
    steps = {
        "monai": monai_step(),
        "ours": our_step(depth=8, bf16=False),
        "ours_bf16": our_step(depth=8, bf16=True),
        "ours_light": our_step(depth=1, bf16=True),
    }
    best = fastest({name: step.passes for name, step in steps.items()}, seconds)
    report("masked auto-encoder, forward and backward", best)
    whole = fastest({name: step.whole for name, step in steps.items()}, seconds)
    report("with the update of the weights", whole)
    result = {}
    for name, key in (("ours", ""), ("ours_bf16", "_bf16"), ("ours_light", "_light")):
        result[f"speed_vs_monai_mae{key}"] = best["monai"] / best[name]
        result[f"whole_step_vs_monai_mae{key}"] = whole["monai"] / whole[name]
    return rounded({**result, **{f"mae_s_{name}": value for name, value in best.items()}})


@dataclass(frozen=True)
class MAEStep:
    """Forward and backward pass, the update of the weights, and what forgets the gradient."""

    forward_and_backward: Callable[[], None]
    update: Callable[[], None]
    forget: Callable[[], None]

    def passes(self) -> None:
        self.forward_and_backward()
        self.forget()

    def whole(self) -> None:
        self.forward_and_backward()
        self.update()
        self.forget()


def our_step(depth: int, bf16: bool) -> MAEStep:
    """A step as `pretrain.py` with loop.compile takes it."""
    config = ViTConfig(1, SIZE, PATCH, width=768, depth=12, heads=12)
    visible = round(math.prod(config.grid) * (1 - RATIO))
    settings = MAESettings(decoder_depth=depth, **DECODER)
    model = MaskedAutoencoderViT(VisionTransformer(config), settings, visible)
    model.compile(dynamic=False)
    images, generator = torch.randn(BATCH, 1, *SIZE), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    copies = WeightCopies(model, optimizer) if bf16 else None

    def both_passes() -> None:
        mask = draw_mask(images, PATCH, RATIO, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = (copies or model)(images, mask).loss
        loss.backward()

    def forget() -> None:
        model.zero_grad(set_to_none=True)
        if copies:
            copies.zero_grad()

    update = functools.partial(copies.update, CLIP) if copies else plain_update(model, optimizer)
    return MAEStep(both_passes, update, forget)


def plain_update(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Clipping and update by torch's own means."""

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return update


def monai_step() -> MAEStep:
    """MONAI's network of equal shape; it leaves the loss to its user."""
    from monai.networks.nets import MaskedAutoEncoderViT

    model = MaskedAutoEncoderViT(
        in_channels=1, img_size=SIZE, patch_size=PATCH, hidden_size=768, mlp_dim=3072,
        num_layers=12, num_heads=12, masking_ratio=RATIO, decoder_hidden_size=480,
        decoder_mlp_dim=1920, decoder_num_layers=8, decoder_num_heads=8, pos_embed_type="learnable",
    )  # fmt: skip
    images = torch.randn(BATCH, 1, *SIZE)

    def both_passes() -> None:
        prediction, mask = model(images)
        error = (prediction - patchify(images, PATCH)).square().mean(-1)
        loss = (error * mask).sum() / mask.sum()
        loss.backward()

    update = plain_update(model, torch.optim.AdamW(model.parameters(), fused=True))
    return MAEStep(both_passes, update, model.zero_grad)


def loader(seconds: float) -> dict[str, float]:
    """Milliseconds for a random crop of a CT."""
    import SimpleITK as sitk

    from mim.data import UnlabeledVolumes, read_cache

    with tempfile.TemporaryDirectory() as folder:
        path = prepared_ct(Path(folder))
        cache = read_cache(Path(folder) / "cache")
        volumes = UnlabeledVolumes(cache, cache.train, limit_gib=0)  # stays on the disk, mapped
        generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)

        def from_cache() -> None:
            draw_crops(volumes, SIZE, 1, generator)

        def from_nifti() -> None:
            whole = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            starts = [random.integers(n - m + 1) for n, m in zip(whole.shape, SIZE, strict=True)]
            box = tuple(slice(start, start + m) for start, m in zip(starts, SIZE, strict=True))
            torch.from_numpy(whole[box].astype(np.float32))

        best = fastest({"cache": from_cache, "nifti": from_nifti}, seconds)
    report("random crop", best)
    return rounded(
        {
            "loader_vs_nifti": best["nifti"] / best["cache"],
            **{f"crop_ms_{name}": 1000 * value for name, value in best.items()},
        }
    )


def prepared_ct(folder: Path) -> Path:
    """A CT of noise on anatomy-like steps, and in ``folder / "cache"`` what prepare.py makes."""
    import SimpleITK as sitk

    from mim.caching import PrepareOptions, prepare_dataset

    random = np.random.default_rng(0)
    coarse = random.integers(-1000, 1000, (25, 64, 64)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    voxels = (coarse + random.normal(0, 20, coarse.shape)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.8, 0.8, 1.5))
    (folder / "scans").mkdir()
    path = folder / "scans" / "ct.nii.gz"
    sitk.WriteImage(image, str(path), useCompression=True)
    options = PrepareOptions(modality="CT", held_back=0, jobs=1, spacing=(1.5, 0.8, 0.8))
    prepare_dataset(path.parent, folder / "cache", options)
    return path


def norm(seconds: float) -> dict[str, float]:
    """How many dense norms a masked one costs: the largest of three stages of a network."""
    found = {}
    for channels, edge in NORMS:
        x = torch.randn(2, channels, *(edge,) * 3, requires_grad=True)
        weight, bias = (torch.ones(channels, requires_grad=True) for _ in range(2))
        blocks = torch.rand(2, 1, *(edge // 5,) * 3) > 0.6
        mask = (
            blocks.repeat_interleave(5, 2).repeat_interleave(5, 3).repeat_interleave(5, 4).float()
        )
        calls = {
            "masked": torch.compile(masked_instance_norm, dynamic=False),
            "dense": torch.compile(dense_norm, dynamic=False),
        }
        steps = {name: norm_step(call, x, mask, weight, bias) for name, call in calls.items()}
        best = fastest(steps, seconds / len(NORMS))
        report(f"norm of {channels} channels of {edge}³, forward and backward", best)
        found[f"masked_norm_vs_dense_{channels}x{edge}"] = best["masked"] / best["dense"]
    return rounded({"masked_norm_vs_dense": max(found.values()), **found})


def dense_norm(x, mask, weight, bias):
    return functional.instance_norm(x, weight=weight, bias=bias)


def norm_step(call, x, mask, weight, bias) -> Callable[[], None]:
    upstream = torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(call(x, mask, weight, bias), (x, weight, bias), upstream)

    return step


def fastest(steps: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """The shortest time of each, which take turns for ``seconds`` times their number.

    A turn is at least a fifth of a second, so that what is fast is tried as long as what is slow.
    """
    for step in steps.values():  # compiles, fills caches
        step()
        step()
    best = dict.fromkeys(steps, float("inf"))
    end = time.perf_counter() + seconds * len(steps)
    while time.perf_counter() < end:
        for name, step in steps.items():
            turn = begin = time.perf_counter()
            while begin - turn < 0.2:
                step()
                now = time.perf_counter()
                best[name], begin = min(best[name], now - begin), now
    return best


def report(what: str, seconds: dict[str, float]) -> None:
    values = ", ".join(f"{name} {value:.4g} s" for name, value in seconds.items())
    print(f"{what}: {values}", flush=True)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
