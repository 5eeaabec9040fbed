"""Write ``MIMSegment/Resources/Models/probe.onnx``, the network that every device is tried with.

    python benchmarks/make_probe.py [FOLDER]

It has the operations of the residual U-Nets that packages hold. Its weights are not stored: the
graph makes them from a formula when it is loaded, which keeps the file at a few kilobytes.
``probe.json`` beside it holds some of the logits that it must return.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MIMSegment.Logic.device_probe import PROBE_MODEL, PROBE_SHAPE, probe_image, probe_samples
from MIMSegment.Logic.runtime import open_session

WIDTH, CLASSES = 32, 3
MODULUS = 1019  # a prime; weight i is (i³ mod 1019 - 509) / 509, scaled


class Graph:
    """Collects nodes; every method returns the name of its result."""

    def __init__(self):
        self.nodes, self.constants, self._count = [], {}, 0

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        self._count += 1
        result = f"{operator.lower()}_{self._count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def constant(self, value, dtype=np.int64) -> str:
        array = np.asarray(value, dtype)
        name = f"{array.dtype}_{'_'.join(map(str, array.ravel()[:6]))}_{array.size}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, *shape: int) -> str:
        """Weights of a fixed shape with the variance of He's initialization."""
        ramp = self.add("Range", *(self.constant(n) for n in (0, math.prod(shape), 1)))
        cubes = self.add("Mul", ramp, self.add("Mul", ramp, ramp))
        mixed = self.add("Mod", cubes, self.constant(MODULUS))
        centered = self.add("Sub", self.add("Cast", mixed, to=TensorProto.FLOAT),
                            self.constant(MODULUS // 2, np.float32))  # fmt: skip
        scale = math.sqrt(6 / math.prod(shape[1:])) / (MODULUS // 2)
        scaled = self.add("Mul", centered, self.constant(scale, np.float32))
        return self.add("Reshape", scaled, self.constant(shape))

    def conv(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        kernel = self.weight(outputs, inputs, 3, 3, 3)
        return self.add("Conv", x, kernel, pads=[1] * 6, strides=[stride] * 3)

    def norm(self, x: str, channels: int) -> str:
        return self.add("InstanceNormalization", x, self.constant([1] * channels, np.float32),
                        self.constant([0] * channels, np.float32), epsilon=1e-5)  # fmt: skip

    def conv_norm_act(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        normalized = self.norm(self.conv(x, inputs, outputs, stride), outputs)
        return self.add("LeakyRelu", normalized, alpha=0.01)

    def residual_block(self, x: str, channels: int) -> str:
        inner = self.conv_norm_act(x, channels, channels)
        inner = self.norm(self.conv(inner, channels, channels), channels)
        return self.add("LeakyRelu", self.add("Add", inner, x), alpha=0.01)


def build():
    """The probe network (1, 1, z, y, x) → (1, 3, z, y, x) as an ONNX model."""
    graph = Graph()
    fine = graph.residual_block(graph.conv_norm_act("image", 1, WIDTH), WIDTH)
    coarse = graph.conv_norm_act(fine, WIDTH, 2 * WIDTH, stride=2)
    up = graph.add("ConvTranspose", coarse, graph.weight(2 * WIDTH, WIDTH, 2, 2, 2),
                   strides=[2] * 3)  # fmt: skip
    joined = graph.add("Concat", up, fine, axis=1)
    decoded = graph.conv_norm_act(joined, 2 * WIDTH, WIDTH)
    head = graph.weight(CLASSES, WIDTH, 1, 1, 1)
    graph.nodes.append(helper.make_node("Conv", [decoded, head], ["logits"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "probe",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, PROBE_SHAPE)],
            [helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, (1, CLASSES, *PROBE_SHAPE[2:])
            )],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )  # fmt: skip
    checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=PROBE_MODEL.parent)
    folder = parser.parse_args().folder
    save(build(), str(folder / "probe.onnx"))
    logits = open_session(folder / "probe.onnx", "cpu", threads=1)(probe_image())
    expected = [round(float(value), 5) for value in probe_samples(logits)]
    (folder / "probe.json").write_text(json.dumps({"expected": expected}) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
