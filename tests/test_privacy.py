"""Nothing calls home."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import socket

def refuse(*arguments, **settings):
    raise AssertionError(f"a connection was asked for: {arguments}")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
import numpy, torch
import gfprestore
from gfprestore.engine import build_engine

class Double(torch.nn.Module):
    def forward(self, x):
        return 2 * x

# Sides that vary are what the engine hands to OpenVINO's own converter, which is where its telemetry lives.
engine = build_engine(Double(), (None, None), device="cpu", precision="fp32")
print(engine.run(numpy.ones((2, 3), numpy.float32))[0].sum())
import openvino.tools.ovc.telemetry_utils as utils
print(utils.tm.__name__)
"""


def test_openvino_has_its_telemetry_stubbed() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12.0", "openvino.tools.ovc.telemetry_stub"]
    assert "a connection was asked for" not in done.stderr
