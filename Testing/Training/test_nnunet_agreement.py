"""What is read of a model of nnU-Net gives the labels of nnU-Net's own predictor (kept in a file).

That the exported network equals the one that is read is tested with the import.
"""

import numpy as np
import pytest
import torch

from mim.nnunet_import import read_model
from mim.nnunet_weights import build, load_checkpoint
from MIMSegment.Logic.engine import segment
from nnunet_golden import CASES, GOLDEN


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_labels_are_those_of_nnunet(case, tmp_path):
    expected = np.load(GOLDEN)[case.name]
    assert len(np.unique(expected)) == len(case.labels)
    model = read_model(case.write(tmp_path))
    spec = model.spec

    def predictor(path):
        checkpoint = load_checkpoint(path)
        net = build(model.architecture, checkpoint, len(spec.inputs), len(spec.channel_labels))

        def predict(tile):
            with torch.inference_mode():
                return net.eval()(torch.from_numpy(tile)).numpy()

        return predict

    found = segment(case.image(), spec, [predictor(path) for path in model.checkpoints]).labels
    assert (found == expected).mean() > 0.9999
