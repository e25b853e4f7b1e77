"""Write what a restoration model by itself makes of face crops, for `gfprestore-eval` to measure.

    gfprestore-eval degrade FACES -o degraded --preset article --seed 7
    python tests/benchmarks/restoring.py degraded restored --model compact
    gfprestore-eval compare FACES compact=restored --input degraded --metrics lpips-vgg,deg,psnr,niqe --sheet sheet.png

FACES is a folder of aligned faces, 512x512, that the model was not trained on. `gfprestore --aligned` would do more:
match the light, give back grain, leave sharp faces alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from gfprestore.photofile import read_photo
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.weights import ensure_weights, read_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="compact", help="Name of weights that are here, or their file.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    restorer = load(arguments.model, arguments.precision)
    arguments.output.mkdir(parents=True)
    for path in tqdm(sorted(arguments.faces.glob("*.[jp][pn]*g"))):
        (restored,) = restorer.restore([read_photo(path).pixels])  # type: ignore[list-item]
        Image.fromarray(restored).save(arguments.output / f"{path.stem}.png", compress_level=1)


def load(model: str, precision: str) -> FaceRestorer:
    path = Path(model) if Path(model).is_file() else ensure_weights(model, offline=True)
    return build_restorer(read_state_dict(path), device="cpu", precision=precision)


if __name__ == "__main__":
    main()
