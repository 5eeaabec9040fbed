"""One of several processes that train together, for test_parallel.py; also runs alone.

python parallel_job.py NETWORK RUN [key=value of loop ...]
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from mim.device import Generators, seed_everything
from mim.loop import LoopSettings, TrainState, train
from mim.mae import MAESettings, MaskedAutoencoderViT
from mim.masked_unet import MaskedAutoencoderUNet, MethodSettings
from mim.masking import draw_mask
from mim.mean_loss import MeanLoss
from mim.networks import NetworkConfig, build_network
from mim.optim import OptimizerSettings
from mim.parallel import process_group, rank, shard, world_size
from mim.runs import LAST
from mim.schedule import TransferSettings
from mim.vit import VisionTransformer, ViTSettings, vit_config

OPTIMIZERS = {
    # AdamW would blow up the rounding errors of biases that the U-Net's norms cancel.
    "unet": OptimizerSettings("sgd", lr=0.02, warmup=2, clip=0.5, momentum=0.9),
    "mae": OptimizerSettings("adamw", lr=0.01, warmup=2, clip=0.5),
}


SIZE, BLOCK = (8, 8, 8), (4, 4, 4)


def network(name):
    """A masked auto-encoder of crops of SIZE voxels."""
    if name == "mae":
        config = vit_config(ViTSettings(patch=BLOCK, width=16, depth=2, heads=2), SIZE, 1)
        settings = MAESettings(decoder_width=16, decoder_depth=1, decoder_heads=2)
        return MaskedAutoencoderViT(VisionTransformer(config), settings, visible=4)
    strides = ((1,) * 3, (2,) * 3, (2,) * 3)
    config = NetworkConfig(1, 1, (4, 8, 8), strides, ((3,) * 3,) * 3, (1, 1, 1))
    return MaskedAutoencoderUNet(build_network(config), 1, MethodSettings())


def run_job(name, run, transfer=None, stop=None, resume=None, **settings):
    """Train on batches that all processes draw alike, each taking its part."""
    seed_everything(0)
    loop = LoopSettings(
        steps=8, batch=4, save_every=3, validate_every=2, tensorboard=False, **settings
    )
    model, generators = network(name), Generators.seeded(0)
    if loop.shard:
        shard(model)
    state = TrainState.fresh(
        model, OPTIMIZERS[name], generators, ema=loop.ema, encoder="network.encoder."
    )
    if resume:
        state.restore(resume)

    parts = []

    def draw():
        if state.step == stop:
            raise KeyboardInterrupt
        if not parts:
            parts.extend(draw_batch())
        return parts.pop()

    def draw_batch():
        images = torch.randn(loop.batch, 1, *SIZE, generator=generators.host)
        mask = draw_mask(images, BLOCK, 0.5, generators.host)
        valid = torch.ones_like(mask)
        for i in range(len(valid)):  # no two processes or parts of a batch have as much padding
            valid[i, ..., 2 + 2 * i :] = False
        for part in range(rank(), world_size() * loop.accumulate, world_size()):
            own = slice(part, None, world_size() * loop.accumulate)
            names = ("case",) * loop.micro_batch
            yield SimpleNamespace(images=images[own], mask=mask[own], valid=valid[own], cases=names)

    def loss(batch):
        found = model(batch.images, batch.mask, batch.valid)
        return MeanLoss(found.loss, found.voxels)

    def validate():
        """The first process finds step 4 the best, the second the last one."""
        return {"validation_loss": abs(state.step - 4.0 - 4 * rank())}

    train(
        state, draw, loss, loop, OPTIMIZERS[name], Path(run), transfer=transfer, validate=validate
    )
    return state


if __name__ == "__main__":
    from mim.checkpoint import load_checkpoint

    name, run, *options = sys.argv[1:]
    settings = dict(option.split("=") for option in options)
    settings = {key: int(value) if value.isdigit() else value for key, value in settings.items()}
    schedule = TransferSettings(settings.pop("schedule", "default"), 0.3, 0.3)
    last = Path(run) / LAST
    code = 0
    with process_group(torch.device("cpu")):
        content = load_checkpoint(last) if settings.pop("resume", 0) else None
        try:
            run_job(name, run, schedule, resume=content, **settings)
        except KeyboardInterrupt:
            code = 3
    sys.exit(code)
