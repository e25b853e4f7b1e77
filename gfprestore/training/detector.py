"""Train, store and evaluate the small face detector that ships: a RetinaFace distilled from the released one.

`python -m gfprestore.training.detector --help` lists the verbs. The model card beside the shipped weights gives the
commands that made them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import cv2
import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gfprestore.command import run_command
from gfprestore.detect import FaceDetector, build_detector
from gfprestore.detection.network import load_network
from gfprestore.errors import NoPhotosError, WeightsError
from gfprestore.training.composites import CompositeConfig, Photo, make_composite, split_faces
from gfprestore.training.detector_evaluation import Agreement, compare_detectors, cut_quarters
from gfprestore.training.detector_loop import DetectorConfig, Training, make_batches, new_student
from gfprestore.weights import read_state_dict

LARGEST_PHOTO = 1600
"""Long side at which real photos are held in memory: crops out of larger ones would only be shrunk again."""

HALF_SEEN = 0.3
"""Threshold of both detectors in an evaluation; see `compare_faces`."""

DEFAULTS = DetectorConfig()

existing_folder = click.Path(exists=True, file_okay=False, path_type=Path)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
faces_option = click.option("--faces", type=existing_folder, required=True, help="Folder of square face crops (JPEG).")
photos_option = click.option("--photos", type=existing_folder, help="Folder of real photos (PNG, JPEG).")
teacher_option = click.option(
    "--teacher", type=existing_file, required=True, help="Weights of the RetinaFace to learn."
)
threads_option = click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")


@click.group()
def main() -> None:
    """Train, store and evaluate the small face detector."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@main.command()
@faces_option
@photos_option
@teacher_option
@threads_option
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--seed", default=DEFAULTS.seed, show_default=True, help="Seed of the weights and photos.")
@click.option("--layer-steps", type=click.IntRange(1), default=DEFAULTS.layer_steps, show_default=True)
@click.option("--whole-steps", type=click.IntRange(1), default=DEFAULTS.whole_steps, show_default=True)
def train(
    faces: Path,
    photos: Path | None,
    teacher: Path,
    threads: int,
    output: Path,
    seed: int,
    layer_steps: int,
    whole_steps: int,
) -> None:
    """Train from random weights, going on from the folder's checkpoint where there is one."""
    _use_threads(threads)
    config = DetectorConfig(seed=seed, layer_steps=layer_steps, whole_steps=whole_steps)
    chosen = _face_files(faces, held_out=False)
    output.mkdir(parents=True, exist_ok=True)
    network = load_network(read_state_dict(teacher)).to(memory_format=torch.channels_last)
    training = Training(new_student(config.seed), network, config, output)
    training.run(make_batches(chosen, [photo for _, photo in read_photos(photos)], config, training.step))


@main.command()
@click.option("--run", "folder", type=existing_folder, required=True, help="Folder of a training run.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Safetensors file.")
def export(folder: Path, output: Path) -> None:
    """Store the running average of a run as safetensors, convolutions in half precision."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    facts = {
        "architecture": "RetinaFace mobile0.25 (facexlib)",
        "steps": str(state["step"]),
        "recipe": json.dumps(state["config"], sort_keys=True),
        "source": "distilled from detection_mobilenet0.25_Final.pth from random initialisation",
    }
    safetensors.torch.save_file(to_storage(state["average"]), output, metadata=facts)
    click.echo(f"{output}: {output.stat().st_size} bytes")


@main.command()
@faces_option
@photos_option
@teacher_option
@threads_option
@click.option("--student", type=existing_file, required=True, help="Weights to judge.")
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Synthetic photos.")
@click.option("--seed", default=1000, show_default=True, help="Seed of the synthetic photos; not a training run's.")
@click.option("--side", type=click.IntRange(64), default=640, show_default=True, help="Side of the synthetic photos.")
def evaluate(
    faces: Path, photos: Path | None, teacher: Path, threads: int, student: Path, count: int, seed: int, side: int
) -> None:
    """Count the teacher's faces that the student finds; one JSON line for each set of photos."""
    _use_threads(threads)
    judged, reference = (_evaluated_detector(path) for path in (student, teacher))
    composites = make_held_out(_face_files(faces, held_out=True), count, seed, side)
    _report("held-out composites", compare_detectors(judged, reference, composites))
    whole, parts = Agreement(), Agreement()
    for name, photo in read_photos(photos):
        agreement = compare_detectors(judged, reference, [photo])
        _report(name, agreement)
        whole = whole + agreement
        parts = parts + compare_detectors(judged, reference, cut_quarters(photo))
    if photos:
        _report("all photos", whole)
        _report("parts of all photos", parts)


def _use_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _face_files(folder: Path, *, held_out: bool) -> list[Path]:
    files = split_faces(sorted(folder.glob("*.jpg")), held_out)
    if not files:
        raise NoPhotosError(f"{folder} holds no JPEG face crops for this side of the split: see --faces.")
    return files


def _evaluated_detector(weights: Path) -> FaceDetector:
    return build_detector(read_state_dict(weights), device="cpu", threshold=HALF_SEEN, min_face=16.0, rotations=False)


def make_held_out(faces: Sequence[Path], count: int, seed: int, side: int) -> Iterator[Photo]:
    """Make synthetic photos, RGB uint8 (side, side, 3), each from a seed of its own."""
    config = CompositeConfig(photo_share=0.0)
    for item in range(count):
        yield make_composite(np.random.default_rng((seed, item)), faces, [], side, config)


def read_photos(folder: Path | None) -> list[tuple[str, Photo]]:
    """Read every PNG and JPEG below a folder, upright, long side at most `LARGEST_PHOTO`.

    Returns:
        Name relative to the folder, and RGB uint8 (H, W, 3).
    """
    photos = []
    for path in sorted(folder.rglob("*")) if folder else []:
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            with Image.open(path) as image:
                photo = ImageOps.exif_transpose(image).convert("RGB")
            photo.thumbnail((LARGEST_PHOTO, LARGEST_PHOTO))
            photos.append((str(path.relative_to(folder or path)), np.array(photo)))
    return photos


def to_storage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Halve the convolutions' kernels; vectors, whose variances can pass float16's range, stay float32.

    Raises:
        WeightsError: A kernel does not fit into half precision.
    """
    stored = {name: (tensor.half() if tensor.dim() == 4 else tensor).contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in stored.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{broken[0]} does not fit into half precision: train again with another --seed.")
    return stored


def _report(name: str, agreement: Agreement) -> None:
    facts = asdict(agreement)
    del facts["errors"]
    facts |= {
        "recall": round(agreement.recall, 4),
        "mean_error": round(agreement.mean_error, 4),
        "median_error": round(agreement.median_error, 4),
    }
    click.echo(json.dumps({"photos": name} | facts))


if __name__ == "__main__":
    run_command(main)
