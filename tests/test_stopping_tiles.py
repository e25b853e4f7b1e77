"""A run that shall stop while a network draws a background: heard between tiles, the photo dropped, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import fake_models
from PIL import Image
from spandrel.architectures.ESRGAN import ESRGAN

from gfprestore.background import BILINEAR, LANCZOS
from gfprestore.dropping import DroppedError
from gfprestore.job import Job
from gfprestore.options import RestoreOptions
from gfprestore.pipeline import restore_photos
from gfprestore.report import Restored
from gfprestore.upscaling.network import load_upscaling_network
from gfprestore.upscaling.upscaler import NetworkUpscaler


class CountingEngine:
    """Repeats pixels, counts its tiles, and does something after each."""

    device, precision = "cpu", "fp32"

    def __init__(self, after: Callable[[int], object] = lambda tiles: None) -> None:
        self.tiles = 0
        self.after = after

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        self.tiles += len(batch)
        self.after(self.tiles)
        return (batch.repeat(2, axis=1).repeat(2, axis=2),)


def upscaler(engine: CountingEngine) -> NetworkUpscaler:
    state = ESRGAN(num_filters=4, num_blocks=1, scale=4, in_nc=12, shuffle_factor=2).state_dict()
    network = load_upscaling_network("a small network", state)
    return NetworkUpscaler(network, device="cpu", precision="fp32", tile_pixels=1, engine=engine)


def photo(seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (350, 900, 3), dtype=np.uint8)
    pixels[0, 0, 0] = 0  # tells the stand-in to find no face
    return pixels


def test_the_upscaler_asks_before_every_tile() -> None:
    engine = CountingEngine()
    upscaler(engine).upscale(photo(), (1800, 700))
    assert engine.tiles > 4
    for heard in range(3):
        engine = CountingEngine()
        with pytest.raises(DroppedError):
            upscaler(engine).upscale(photo(), (1800, 700), lambda most=heard, engine=engine: engine.tiles >= most)
        assert engine.tiles == heard


@pytest.mark.parametrize("plain", [LANCZOS, BILINEAR])
def test_resampling_asks_once(plain: object) -> None:
    with pytest.raises(DroppedError):
        plain.upscale(photo(), (1800, 700), lambda: True)  # type: ignore[attr-defined]


def test_a_stop_between_tiles_leaves_whole_photos_and_nothing_else(tmp_path: Path) -> None:
    """The run is asked to stop during the second photo's second tile."""
    jobs = []
    for index in range(3):
        source = tmp_path / "album" / f"{index}.png"
        source.parent.mkdir(exist_ok=True)
        Image.fromarray(photo(index)).save(source)
        jobs.append(Job(source, tmp_path / "out" / f"{index}.png", Path(source.name)))
    (tmp_path / "out").mkdir()
    calm = CountingEngine()
    upscaler(calm).upscale(photo(), (1800, 700))
    stops_after = calm.tiles + 2
    engine = CountingEngine()
    models = replace(fake_models(), upscaler=upscaler(engine))
    outcomes = restore_photos(jobs[:1], models, RestoreOptions(upscale=2))
    assert [type(outcome) for outcome in outcomes] == [Restored]
    outcomes = restore_photos(
        jobs[1:], models, RestoreOptions(upscale=2), should_stop=lambda: engine.tiles >= stops_after
    )
    assert list(outcomes) == []
    # The photos in work each end the tile they are at; none begins another.
    assert stops_after <= engine.tiles <= stops_after + 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.png"]
