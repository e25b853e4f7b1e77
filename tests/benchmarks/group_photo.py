"""A group photo of many faces at x2, start to end, beside the official way.

    python tests/benchmarks/group_photo.py PHOTO --detector WEIGHTS [--restored 4] [--pasted 29]

WEIGHTS are facexlib's RetinaFace, such as `detection_mobilenet0.25_Final.pth`, which find the faces in both ways. The
official way is GFPGAN's own order of work on the same parts: RetinaFace at native size, facexlib's alignment, GFP-GAN
one face at a time (spandrel's form, with stored noise), and facexlib's paste with ParseNet's mask into an enlarged
photo. It takes minutes, so only `--restored` of its faces are restored and `--pasted` of them pasted, and the table
says what is extrapolated from them. Ours is the whole pipeline from the photo's file to the written result. Both run
the same random weights of the official network's full width; ParseNet's are random too. Neither counts the loading of
networks. `CPU s` is processor time over all threads, which waiting for the processor does not change.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from folder import make_full_width
from generator import random_official
from torch import nn

from gfprestore.align import FACE_TEMPLATE
from gfprestore.detection.network import load_network
from gfprestore.engine import resolve_precision
from gfprestore.folders import plan_jobs
from gfprestore.models import load_models
from gfprestore.options import RestoreOptions
from gfprestore.pipeline import restore_photos
from gfprestore.report import Restored
from gfprestore.weights import read_state_dict

SIZE, UPSCALE = 512, 2

OFFICIAL_THRESHOLD = 0.97
"""Least score of a face in facexlib's helper."""

Cost = tuple[float, float]
"""Wall and processor seconds."""


def measure(work: Callable[[], Any]) -> tuple[Cost, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - wall, time.process_time() - processor), result


def times(cost: Cost, factor: float) -> Cost:
    return cost[0] * factor, cost[1] * factor


class OfficialWay:
    """facexlib's helper with networks of our own giving, since its constructor downloads them."""

    def __init__(self, photo: Path, detector: Path) -> None:
        from facexlib.parsing.parsenet import ParseNet
        from facexlib.utils.face_restoration_helper import FaceRestoreHelper

        torch.manual_seed(0)
        self.generator: nn.Module = random_official()
        helper = FaceRestoreHelper.__new__(FaceRestoreHelper)
        helper.face_size, helper.upscale_factor, helper.crop_ratio = (SIZE, SIZE), UPSCALE, (1, 1)
        helper.save_ext, helper.pad_input, helper.pad_blur, helper.template_3points = "png", False, False, False
        helper.face_template, helper.device, helper.use_parse = FACE_TEMPLATE, torch.device("cpu"), True
        helper.face_det = load_network(read_state_dict(detector)).eval()
        helper.face_parse = ParseNet(in_size=SIZE, out_size=SIZE, parsing_ch=19).eval()
        helper.clean_all()
        helper.read_image(cv2.imread(str(photo)))
        self.helper = helper

    @torch.inference_mode()
    def find(self) -> int:
        """Finds and aligns the faces."""
        found = self.helper.face_det.detect_faces(self.helper.input_img, OFFICIAL_THRESHOLD)
        self.helper.all_landmarks_5 = [face[5:15].reshape(5, 2) for face in found]
        self.helper.align_warp_face()
        return len(found)

    @torch.inference_mode()
    def restore(self, count: int) -> None:
        """Restores the first faces; the others stay as they are."""
        for index, crop in enumerate(self.helper.cropped_faces):
            if index < count:
                face = torch.from_numpy(np.ascontiguousarray(crop[:, :, ::-1])).permute(2, 0, 1)[None] / 127.5 - 1
                image = self.generator(face)[0].clamp(-1, 1)
                crop = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()[:, :, ::-1]
            self.helper.add_restored_face(np.ascontiguousarray(crop))

    @torch.inference_mode()
    def paste(self, count: int, target: Path) -> None:
        """Pastes the first faces into the enlarged photo and writes it."""
        helper = self.helper
        helper.restored_faces, helper.affine_matrices = helper.restored_faces[:count], helper.affine_matrices[:count]
        helper.get_inverse_affine()
        height, width = helper.input_img.shape[:2]
        size = width * UPSCALE, height * UPSCALE
        canvas = cv2.resize(helper.input_img, size, interpolation=cv2.INTER_LANCZOS4)
        cv2.imwrite(str(target), helper.paste_faces_to_input_image(upsample_img=canvas))


def run_official(arguments: argparse.Namespace, folder: Path) -> tuple[Cost, int]:
    way = OfficialWay(arguments.photo, arguments.detector)
    finding, faces = measure(way.find)
    restored, pasted = min(arguments.restored, faces), min(arguments.pasted, faces)
    way.generator(torch.zeros(1, 3, SIZE, SIZE))
    restoring, _ = measure(lambda: way.restore(restored))
    pasting, _ = measure(lambda: way.paste(pasted, folder / "official.png"))
    parts = [
        ("find and align", finding, faces),
        ("restore", times(restoring, faces / restored), restored),
        ("paste and write", times(pasting, faces / pasted), pasted),
    ]
    for name, cost, count in parts:
        tell(f"official: {name}", cost, f"{count} faces measured, {faces - count} extrapolated")
    whole = sum(cost[0] for _, cost, _ in parts), sum(cost[1] for _, cost, _ in parts)
    return whole, faces


def run_ours(arguments: argparse.Namespace, folder: Path, precision: str) -> tuple[Cost, int]:
    options = RestoreOptions(
        model=str(folder / "full.safetensors"),
        detector=str(arguments.detector),
        upscale=UPSCALE,
        background="lanczos",
        offline=True,
        overwrite=True,
        precision=precision,
    )
    models = load_models(options, say=lambda _: None)
    jobs = plan_jobs([arguments.photo], folder / "ours")
    list(restore_photos(plan_jobs([arguments.first], folder / "first"), models, options))
    cost, outcomes = measure(lambda: list(restore_photos(jobs, models, options)))
    (outcome,) = outcomes
    assert isinstance(outcome, Restored), outcome
    return cost, len(outcome.faces)


def tell(name: str, cost: Cost, note: str = "") -> None:
    print(f"{name:32} {cost[0]:8.2f} {cost[1]:8.2f}  {note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--detector", type=Path, required=True, help="weights of facexlib's RetinaFace, for both ways")
    parser.add_argument("--restored", type=int, default=4, help="faces that the official way restores")
    parser.add_argument("--pasted", type=int, default=10_000, help="faces that the official way pastes; all by default")
    arguments = parser.parse_args()
    arguments.first = Path(__file__).resolve().parents[2] / "examples" / "album" / "1974 aunt.jpg"
    print(f"{'':32} {'wall s':>8} {'CPU s':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_full_width(folder / "full.safetensors")
        precisions = ["fp32", "bf16"] if resolve_precision("auto", "cpu") == "bf16" else ["fp32"]
        ours = {}
        for precision in precisions:
            ours[precision], faces = run_ours(arguments, folder, precision)
            tell(f"gfprestore {precision}", ours[precision], f"{faces} faces")
        official, faces = run_official(arguments, folder)
        tell("official, all", official, f"{faces} faces")
    for precision, cost in ours.items():
        ratios = official[0] / cost[0], official[1] / cost[1]
        print(f"{'ratio ' + precision:32} {ratios[0]:8.1f} {ratios[1]:8.1f}")


if __name__ == "__main__":
    main()
