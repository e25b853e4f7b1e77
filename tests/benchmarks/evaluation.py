"""PSNR + SSIM + LPIPS-AlexNet of pairs of 512x512, read once, beside each metric alone in its own library.

    python tests/benchmarks/evaluation.py [--count 1000]

Every way reads the same PNG files and runs on all cores. The others read with OpenCV in the same thread: torchmetrics
for PSNR and SSIM, scikit-image for SSIM, the `lpips` package for LPIPS, eight pairs at a time where they take batches.
The features of LPIPS are random: what they cost does not depend on their values. Processor seconds, of all cores, tell
more than wall seconds on a machine that has other work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import lpips
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from gfprestore.evaluation.lpips_metric import LpipsMetric, LpipsNetwork
from gfprestore.evaluation.network import MetricNetwork
from gfprestore.evaluation.pairs import pair_images
from gfprestore.evaluation.psnr import PsnrMetric
from gfprestore.evaluation.reading import read_batches
from gfprestore.evaluation.scoring import score_batches
from gfprestore.evaluation.ssim import SsimMetric

SIDE, BATCH = 512, 8


def write_pairs(folder: Path, count: int) -> None:
    """Writes smooth images and noisy ones of the same names."""
    generator = np.random.default_rng(0)
    for kind in ("truth", "restored"):
        (folder / kind).mkdir()
    for index in range(count):
        coarse = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        truth = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        restored = np.clip(truth + generator.normal(0, 10, truth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "truth" / f"{index:05}.png"), truth)
        cv2.imwrite(str(folder / "restored" / f"{index:05}.png"), restored)


def batches(folder: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    names = sorted(path.name for path in (folder / "truth").iterdir())
    for start in range(0, len(names), BATCH):
        stacks = []
        for kind in ("restored", "truth"):
            images = [cv2.imread(str(folder / kind / name))[..., ::-1] for name in names[start : start + BATCH]]
            stacks.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float())
        yield stacks[0], stacks[1]


def ours(folder: Path) -> Callable[[], object]:
    network = MetricNetwork(LpipsNetwork("alex").eval(), "cpu")
    network.run(torch.zeros(1, 2, 3, SIDE, SIDE, dtype=torch.uint8))
    metrics = [PsnrMetric(is_matched=False), SsimMetric(is_matched=False), LpipsMetric("alex", network)]

    def run() -> object:
        groups = pair_images([("truth", folder / "truth"), ("restored", folder / "restored")]).groups
        read = read_batches(groups, batch_size=BATCH, device="cpu", has_truth=True, has_background=False)
        return score_batches(read, ("restored",), metrics, None, None, lambda _done: None)

    return run


def with_lpips(folder: Path) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    return lambda: [network(a / 127.5 - 1, b / 127.5 - 1) for a, b in batches(folder)]


def with_torchmetrics_psnr(folder: Path) -> Callable[[], object]:
    options = {"data_range": 255.0, "reduction": "none", "dim": (1, 2, 3)}
    return lambda: [peak_signal_noise_ratio(a, b, **options) for a, b in batches(folder)]


def with_torchmetrics_ssim(folder: Path) -> Callable[[], object]:
    return lambda: [
        structural_similarity_index_measure(a, b, data_range=255.0, reduction="none") for a, b in batches(folder)
    ]


def with_skimage_ssim(folder: Path) -> Callable[[], object]:
    options = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
    return lambda: [
        structural_similarity(x, y, **options)
        for a, b in batches(folder)
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]


OURS = ("ours: PSNR + SSIM + LPIPS",)
WAYS = {
    OURS[0]: ours,
    "lpips: LPIPS alone": with_lpips,
    "torchmetrics: SSIM alone": with_torchmetrics_ssim,
    "scikit-image: SSIM alone": with_skimage_ssim,
    "torchmetrics: PSNR alone": with_torchmetrics_psnr,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="pairs")
    parser.add_argument("--rounds", type=int, default=1, help="rounds over all ways; the least times count")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        write_pairs(folder, arguments.count)
        ways = {title: make(folder) for title, make in WAYS.items()}
        times = {title: (float("inf"), float("inf")) for title in ways}
        for _ in range(arguments.rounds):
            for title, run in ways.items():
                wall, processor = time.perf_counter(), time.process_time()
                run()
                spent = time.perf_counter() - wall, time.process_time() - processor
                times[title] = min(times[title][0], spent[0]), min(times[title][1], spent[1])
    slowest = [max(spent[kind] for title, spent in times.items() if title not in OURS) for kind in (0, 1)]
    print(f"{arguments.count} pairs{'':22}wall s  of slowest   processor s  of slowest")
    for title, (wall, processor) in times.items():
        print(f"{title:28}{wall:9.1f}{wall / slowest[0]:12.2f}{processor:14.1f}{processor / slowest[1]:12.2f}")


if __name__ == "__main__":
    main()
