"""Watching that the program never waits for the device, on a machine that has none.

On the CPU reading a number costs nothing and nobody notices it; on a GPU the program waits until
everything before it is computed. The same holds for a copy to the device that is not asked for with
``non_blocking``. `no_waiting` follows the tensors that would lie on the device and raises where one
of them is read, or where another one is brought there by a copy that waits.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their results are on the host, or of a size that only the device knows.
READS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2",
    "unique_dim", "repeat_interleave",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# The host gets the numbers; on a CPU torch dispatches nothing that would show it.
GETS = (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy)
MAKES = (torch.tensor, torch.as_tensor, torch.asarray)


@contextmanager
def no_waiting(
    tensors: Iterable[torch.Tensor], generators: Iterable[torch.Generator] = ()
) -> Iterator["NoReading"]:
    """Within it ``tensors`` are on the device, and what is made of them or of ``generators``."""
    with NoReading(tensors, generators) as watched, _NoBlockingCopy(watched):
        yield watched


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


class _NoBlockingCopy(TorchFunctionMode):
    """What is moved to a device is followed too; it must be moved without waiting."""

    def __init__(self, reading: NoReading):
        super().__init__()
        self.followed = reading.followed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_device = bool(args) and id(args[0]) in self.followed
        assert not (on_device and function in GETS), f"read back from the device: {function}"
        made_there = function in MAKES and kwargs.get("device") is not None
        assert not made_there, f"waits for a copy to the device: torch.{function.__name__}"
        result = function(*args, **kwargs)
        if function is not torch.Tensor.to or on_device or not _names_a_device(args[1:], kwargs):
            return result
        waits = not kwargs.get("non_blocking", any(a is True for a in args[1:]))
        assert not waits, "waits for a copy to the device: to() without non_blocking"
        if result is args[0]:  # what was moved stays on the host as well
            result = result.clone()
        self.followed[id(result)] = result
        return result


def _names_a_device(args, kwargs) -> bool:
    named = any(isinstance(a, torch.device | str | torch.Tensor) for a in args)
    return named or bool({"device", "other"} & set(kwargs))
