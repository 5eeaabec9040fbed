"""One of several processes that train together, for test_parallel.py; also runs alone.

python parallel_job.py NETWORK RUN [key=value of loop ...]
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from mim.device import Generators, seed_everything
from mim.loop import LoopSettings, TrainState, train
from mim.networks import NetworkConfig, build_network
from mim.optim import OptimizerSettings
from mim.parallel import process_group, rank, shard, world_size
from mim.runs import LAST
from mim.schedule import TransferSettings

OPTIMIZERS = {
    # AdamW would blow up the rounding errors of biases that the U-Net's norms cancel.
    "unet": OptimizerSettings("sgd", lr=0.02, warmup=2, clip=0.5, momentum=0.9),
    "transformer": OptimizerSettings("adamw", lr=0.01, warmup=2, clip=0.5),
}


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each added to its input."""

    def __init__(self, width=16):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, bias=False, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Voxels of 4 x 4 x 4 blocks as tokens, two blocks, one number for each voxel."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(64, 16)
        self.blocks = nn.Sequential(TransformerBlock(), TransformerBlock())
        self.head = nn.Linear(16, 64)

    def forward(self, images):
        tokens = images.reshape(len(images), 8, 64)
        return self.head(self.blocks(self.encoder(tokens))).reshape(images.shape)


def network(name):
    if name == "transformer":
        return Transformer()
    return build_network(NetworkConfig(1, 1, (4, 8), ((1,) * 3, (2,) * 3), ((3,) * 3,) * 2, (1, 1)))


def run_job(name, run, transfer=None, stop=None, resume=None, **settings):
    """Train on batches that all processes draw alike, each taking its part."""
    seed_everything(0)
    loop = LoopSettings(steps=8, batch=4, save_every=3, tensorboard=False, **settings)
    model, generators = network(name), Generators.seeded(0)
    if loop.shard:
        shard(model)
    state = TrainState.fresh(model, OPTIMIZERS[name], generators, ema=loop.ema, encoder="encoder.")
    if resume:
        state.restore(resume)

    def draw():
        if state.step == stop:
            raise KeyboardInterrupt
        images = torch.randn(loop.batch // loop.accumulate, 1, 8, 8, 8, generator=generators.host)
        images = images[rank() :: world_size()]
        return SimpleNamespace(images=images, cases=("case",) * len(images))

    def loss(batch):
        return (model(batch.images) - batch.images.cumsum(-1)).square().mean()

    train(state, draw, loss, loop, OPTIMIZERS[name], Path(run), transfer=transfer)
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
