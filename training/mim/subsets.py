"""An order of subjects of which every beginning is a fair subset."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping


def stratified(classes: Mapping[str, Hashable], seed: int) -> list[str]:
    """The names of ``classes`` in an order in which every beginning has the classes evenly."""
    names, draws = sorted(classes), random.Random(seed)
    draws.shuffle(names)
    strata: dict[Hashable, list[str]] = {}
    for name in names:
        strata.setdefault(classes[name], []).append(name)
    places = {}
    for members in strata.values():
        # Classes of one or two begin anywhere: in the middle no small beginning would have any.
        first = 0.5 if len(members) > 4 else draws.random()
        places |= {name: (i + first) / len(members) for i, name in enumerate(members)}
    return sorted(names, key=places.__getitem__)
