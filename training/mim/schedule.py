"""How the learning rate of a fine-tuning moves, and when the encoder learns too.

The names are those of OpenMind (Wald et al., ICCV 2025, arXiv 2412.17041). A schedule is a pure
function of the step, so that a run resumed anywhere continues the same curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from mim.optim import OptimizerSettings, fall, learning_rate
from mim.recipe import RecipeError, setting


@dataclass(frozen=True)
class TransferSettings:
    """How pre-trained weights are led into another task."""

    schedule: Literal["default", "frozen", "warmup", "valley", "sawtooth"] = setting(
        "default",
        "default: as optimizer says. frozen: so, without the encoder. warmup: the rate rises, then "
        "falls. valley, sawtooth: first the decoder alone, its rate falling or rising; then warmup",
    )
    decoder_share: float = setting(
        0.05, "share of the steps that train the decoder alone (valley, sawtooth)"
    )
    warmup_share: float = setting(
        0.05, "share of the steps in which the rate rises (warmup, valley, sawtooth)"
    )
    layer_decay: float = setting(
        1.0, "factor of the learning rate from each layer of the encoder to the one before it"
    )
    head_lr: float = setting(1.0, "factor of the learning rate of all that is not encoder")

    def __post_init__(self):
        shares = (self.decoder_share, self.warmup_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise RecipeError(
                f"transfer.decoder_share and warmup_share must be at least 0 and below 1 together, "
                f"not {shares}."
            )
        if not 0 < self.layer_decay <= 1 or self.head_lr <= 0:
            raise RecipeError("transfer.layer_decay must be in (0, 1] and head_lr above 0.")


class Pace(NamedTuple):
    """The learning rate of a step, before factors of layers, and whether the encoder learns."""

    lr: float
    encoder: bool


def pace(transfer: TransferSettings, optimizer: OptimizerSettings, step: int, steps: int) -> Pace:
    """The pace of update ``step`` (0 is the first) in a run of ``steps`` updates."""
    if transfer.schedule in ("default", "frozen"):
        return Pace(learning_rate(optimizer, step, steps), transfer.schedule == "default")
    alone = 0 if transfer.schedule == "warmup" else round(transfer.decoder_share * steps)
    rise = round(transfer.warmup_share * steps)
    if step < alone:
        rising = transfer.schedule == "sawtooth"
        share = (step + 1) / alone if rising else fall(optimizer.schedule, step / alone)
        return Pace(optimizer.lr * share, False)
    if step < alone + rise:
        return Pace(optimizer.lr * (step - alone + 1) / rise, True)
    done = (step - alone - rise) / max(1, steps - alone - rise)
    return Pace(optimizer.lr * fall(optimizer.schedule, done), True)
