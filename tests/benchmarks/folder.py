"""Restore a folder of 200 photos: is the slowest step always at work, and are all processors?

    python tests/benchmarks/folder.py [--photos 200] [--model compact|full|FILE] [-- OPTIONS OF gfprestore]

Makes a folder from the sample album in several sizes, restores it with the command itself and `--profile`, and prints
where the time went after the start-up: working and waiting by step, the share of its time that the slowest step's
threads worked, and processor time over all processors' time. `full` is the official network's full width with random
weights, for which a folder of 200 takes minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
ALBUM = PROJECT / "examples" / "album"

SCALES = (1.0, 1.6, 2.5)
"""Sizes of the photos, in sizes of the sample album: 0.3, 0.8 and 2 megapixels."""

COMMAND = [sys.executable, "-c", "from gfprestore.cli import run; run()"]


def make_folder(folder: Path, count: int) -> None:
    """Writes photos of the sample album in several sizes, mixed, until there are enough."""
    folder.mkdir()
    made: list[Path] = []
    sources = sorted(path for path in ALBUM.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))
    for index in range(count):
        scale, source = SCALES[index % len(SCALES)], sources[index % len(sources) - index // len(sources) % 2]
        target = folder / f"{index:04d}{source.suffix}"
        if index >= len(SCALES) * len(sources) * 2:
            first = made[index % (len(SCALES) * len(sources) * 2)]
            target = target.with_suffix(first.suffix)
            shutil.copyfile(first, target)
        elif scale == 1:
            shutil.copyfile(source, target)
        else:
            with Image.open(source) as image:
                size = round(image.width * scale), round(image.height * scale)
                # Sixteen bits have no resampling in Pillow that keeps them.
                plain = image if image.mode in ("L", "RGB", "RGBA") else image.convert("L")
                plain.resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
        made.append(target)


def make_full_width(path: Path) -> None:
    """Writes random weights in the official layout and width."""
    from generator import random_official
    from safetensors.torch import save_file

    state = {key.removeprefix("network."): tensor for key, tensor in random_official().state_dict().items()}
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


def restore(folder: Path, model: str, options: list[str]) -> dict[str, Any]:
    """Runs the command and returns the last line of its report."""
    report = folder / "report.jsonl"
    arguments = [folder / "in", "-o", folder / "out", "--offline", "--model", model, "--report", report, "--profile"]
    subprocess.run([*COMMAND, *map(str, arguments), *options], check=True, cwd=PROJECT)
    line: dict[str, Any] = json.loads(report.read_text().splitlines()[-1])
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--model", default="compact")
    parser.add_argument("options", nargs="*", help="options of gfprestore, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder / "in", arguments.photos)
        model = arguments.model
        if model == "full":
            model = str(folder / "full.safetensors")
            torch.manual_seed(0)
            make_full_width(Path(model))
        summary = restore(folder, model, arguments.options)
    profile = summary["profile"]
    slowest = profile["steps"][profile["slowest"]]
    busy = profile["processor"] / (profile["cores"] * profile["wall"])
    print(f"{arguments.photos} photos, {summary['faces']} faces, in {profile['wall']:.1f} s after the start-up")
    print(f"processor time: {profile['processor']:.1f} s, {busy:.1%} of {profile['cores']} processors' time")
    print(f"the slowest step, {profile['slowest']} ({slowest['threads']} threads), worked {slowest['share']:.1%} of it")


if __name__ == "__main__":
    main()
