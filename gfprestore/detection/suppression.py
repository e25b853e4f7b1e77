"""torchvision's non-maximum suppression, without the rest of torchvision.

`import torchvision` takes longer than that of torch itself, most of it for torch's compiler, which its operators pull
in. The operator asked for here is compiled code, which torch loads by itself.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], overlap: float) -> NDArray[np.intp]:
    """Leaves of boxes that overlap the one with the highest score.

    Args:
        boxes: (K, 4): left, top, right, bottom.
        scores: (K,).
        overlap: Two boxes that share more of their union than this are one.

    Returns:
        Rows of the boxes that are left, highest score first; of equal scores the first row.
    """
    _load_operators()
    kept = torch.ops.torchvision.nms(torch.from_numpy(boxes), torch.from_numpy(scores), overlap)
    return np.asarray(kept.numpy(), np.intp)


@cache
def _load_operators() -> None:
    spec = importlib.util.find_spec("torchvision")  # this finds it and runs nothing of it
    folders = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    for library in sorted(found for folder in folders for found in Path(folder).glob("_C*.[sp][oy]*")):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:  # it needs what only torchvision itself knows to find
            continue
        if hasattr(torch.ops.torchvision, "nms"):
            return
    import torchvision.ops  # noqa: F401  # slower, and for sure
