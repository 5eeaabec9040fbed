"""Watching that nothing is read back from the device, on a machine that has none.

On the CPU reading a number costs nothing and nobody notices it; on a GPU the program waits until
everything before it is computed. `NoReading` follows the tensors that would lie on the device and
raises where one of them is read.
"""

from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their results are on the host, or of a size that only the device knows.
READS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2",
    "unique_dim", "repeat_interleave",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class NoReading(TorchDispatchMode):
    """Within it what is computed from ``tensors``, or drawn from ``generators``, is followed."""

    def __init__(self, tensors: Iterable[torch.Tensor], generators: Iterable[torch.Generator] = ()):
        super().__init__()
        self.generators = set(map(id, generators))
        self.followed = {id(tensor): tensor for tensor in tensors}  # kept, so that ids stay theirs
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(id(tensor) in self.followed for tensor in inputs)
        on_device |= id(kwargs.get("generator")) in self.generators
        name = function.overloadpacket.__name__
        if on_device:
            self.operations += 1
            assert name not in READS, f"read back from the device: {name}"
            by_mask = name in INDEXING and any(
                t.dtype in (torch.bool, torch.uint8) for t in _places(args)
            )
            assert not by_mask, "read back from the device: an index that is a mask"
        result = function(*args, **kwargs)
        if on_device:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.followed[id(leaf)] = leaf
        return result


def _places(args) -> list[torch.Tensor]:
    return [index for index in args[1] if isinstance(index, torch.Tensor)]
