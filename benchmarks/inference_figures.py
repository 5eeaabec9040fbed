"""The figures of the inference benchmark, from what `inference` stored of each program."""

from __future__ import annotations

import json
import os
import sys
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MIMSegment.Logic.volume import read_volume

PEERS = ("nnunet", "monai")
SHORT = {  # what stands for us where a key names no program
    "speed_vs_monai": "speed_vs_monai_openvino",
    "label_agreement_vs_nnunet": "label_agreement_vs_nnunet_openvino_float32",
    "peak_rss_ratio_vs_nnunet": "peak_rss_ratio_vs_nnunet_openvino",
    "non_network_share": "non_network_share_openvino",
}


def figures(scan: Path, names: list[str]) -> dict:
    """Ratios first, then what they were calculated from; programs not yet measured are left out."""
    measured = {}
    for name in names:
        if (path := scan / f"{name}.json").exists():
            measured[name] = json.loads(path.read_text())
            measured[name]["labels"] = read_volume(scan / name / "case.nii.gz").array[0]
    result = {}
    ours = [name for name in measured if name not in PEERS]
    for peer, name in product((p for p in PEERS if p in measured), ours):
        seconds = measured[peer]["seconds"] / measured[name]["seconds"]
        result[f"speed_vs_{peer}_{name}"] = round(seconds, 2)
    for name in ours:
        if "nnunet" in measured:
            result |= _against_nnunet(name, measured["nnunet"], measured[name])
        measured[name] |= json.loads((scan / f"{name}_times.json").read_text())
        share = 1 - measured[name]["network_seconds"] / measured[name]["seconds"]
        result[f"non_network_share_{name}"] = round(share, 3)
    short = {key: result[long] for key, long in SHORT.items() if long in result}
    return {**short, **result, **_circumstances(measured)}


def _against_nnunet(name: str, peer: dict, ours: dict) -> dict:
    equal = peer["labels"] == ours["labels"]
    structures = (peer["labels"] > 0) | (ours["labels"] > 0)
    return {
        f"label_agreement_vs_nnunet_{name}": round(float(equal.mean()), 6),
        f"label_agreement_in_structures_{name}": round(float(equal[structures].mean()), 6),
        f"peak_rss_ratio_vs_nnunet_{name}": round(ours["peak_bytes"] / peer["peak_bytes"], 3),
    }


def _circumstances(measured: dict) -> dict:
    def of_all(key: str, digits: int, unit: float = 1) -> dict:
        return {n: round(m[key] / unit, digits) for n, m in measured.items() if key in m}

    one = next(iter(measured.values()))
    return {
        "seconds": of_all("seconds", 1),
        "network_seconds": of_all("network_seconds", 1),
        "cpu_seconds": of_all("cpu_seconds", 1),
        "peak_gb": of_all("peak_bytes", 2, 1e9),
        "windows": of_all("windows", 0),
        "voxels": list(one["labels"].shape),
        "labels_found": len(np.unique(one["labels"])),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _processor(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = {key.strip(): value.strip() for key, _, value in (n.partition(":") for n in lines)}
    extras = [flag for flag in ("avx512f", "amx_bf16") if flag in known.get("flags", "").split()]
    return f"{known.get('model name', 'unknown')} ({', '.join(extras)})"
