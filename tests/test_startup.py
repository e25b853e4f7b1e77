"""What a run need not wait for: torchvision, the building of a network that is compiled already, a read of weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_programs import needs_kernels

from gfprestore import detect
from gfprestore.detect import build_detector
from gfprestore.detection import network
from gfprestore.detection.network import build_network
from gfprestore.nn.tensors import as_arrays
from gfprestore.weights import read_state_dict

PROJECT = Path(__file__).resolve().parent.parent


@needs_kernels
def test_a_run_on_the_compiled_kernels_loads_neither_torch_nor_openvino(tmp_path: Path) -> None:
    album = PROJECT / "examples" / "album"
    options = ["--offline", "--model", "compact", "--detector", "detector-compact", "--device", "cpu"]
    options += ["--colorize", "auto", "--descratch", "--precision", "fp32", "--save-faces", str(tmp_path / "faces")]
    code = (
        "import sys\nfrom gfprestore.cli import main\n"
        f"main({[str(album), '-o', str(tmp_path / 'out'), *options]!r}, standalone_mode=False)\n"
        "assert not {'torch', 'torchvision', 'facexlib', 'openvino', 'spandrel'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    assert "photos restored (" in done.stderr


def test_a_run_with_nothing_to_do_loads_no_torch(tmp_path: Path) -> None:
    for folder in ("album", "out"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"")
    code = (
        "import sys\nfrom gfprestore.cli import main\n"
        f"main({[str(tmp_path / 'album'), '-o', str(tmp_path / 'out')]!r}, standalone_mode=False)\n"
        "assert not {'torch', 'cv2', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    assert done.stderr.startswith("0 photos restored, 1 skipped since its result exists")


def test_a_detector_that_is_compiled_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "build_native_detector", lambda *_: None)
    torch.manual_seed(0)
    state = as_arrays(build_network("mobile0.25").state_dict())
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    def rows_of() -> np.ndarray:
        detector = build_detector(state, device="cpu", threshold=0.5, min_face=0, cache_folder=tmp_path)
        return detector._engine.run(photo[None])[0]

    first = rows_of()
    built: list[int] = []
    load_network = network.load_network
    monkeypatch.setattr(network, "load_network", lambda state: built.append(1) or load_network(state))
    np.testing.assert_array_equal(rows_of(), first)
    assert built == []
    # Other weights are another network.
    state = {**state, "body.stage1.0.0.weight": state["body.stage1.0.0.weight"] * 2}
    assert not np.array_equal(rows_of(), first)
    assert built == [1]
    # And so is what is damaged.
    for blob in tmp_path.glob("*.blob"):
        blob.write_bytes(blob.read_bytes()[:-1])
    rows_of()
    assert built == [1, 1]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
@pytest.mark.parametrize("name", ["gfprestore_compact_fp16", "detector_compact_fp16"])
def test_weights_that_ship_are_mapped_into_memory(name: str) -> None:
    path = PROJECT / "weights" / f"{name}.safetensors"
    state = read_state_dict(path)
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines if line.endswith(str(path))]
    assert spans, "the file is not mapped at all"
    for array in state.values():
        assert any(start <= array.ctypes.data < end for start, end in spans)
