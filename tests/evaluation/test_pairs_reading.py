from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import tifffile

from gfprestore.errors import UsageError
from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.columns import COLUMNS, choose_columns
from gfprestore.evaluation.images import FailedImage, read_image
from gfprestore.evaluation.pairs import list_images, pair_images
from gfprestore.evaluation.reading import read_batches


def tiny(value: int, side: int = 12) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_pairs_by_path_whatever_the_suffix_and_names_what_is_missing(write_images):
    truth = write_images("truth", {"a.png": tiny(1), "sub/b.c.png": tiny(2), "lost.png": tiny(3)})
    method = write_images("method", {"a.jpg": tiny(1), "sub/b.c.tif": tiny(2), "extra.png": tiny(4)})
    (method / "notes.txt").write_text("no image")
    pairing = pair_images([("truth", truth), ("ours", method)])
    assert [group.name for group in pairing.groups] == ["a", "sub/b.c"]
    assert pairing.groups[1].paths == (truth / "sub/b.c.png", method / "sub/b.c.tif")
    assert pairing.unpaired == ("extra is missing in truth.", "lost is missing in ours.")


def test_nothing_to_pair_is_one_sentence(write_images, tmp_path):
    first, second = write_images("first", {"a.png": tiny(1)}), write_images("second", {"b.png": tiny(1)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="a in truth and b in ours"):
        pair_images([("truth", first), ("ours", second)])
    with pytest.raises(UsageError, match="holds no image"):
        pair_images([("truth", first), ("ours", tmp_path / "empty")])
    with pytest.raises(UsageError, match="not a folder"):
        list_images(tmp_path / "missing")


def test_a_folder_that_cannot_be_looked_into_is_told(write_images, monkeypatch):
    truth, method = (write_images(name, {"a.png": tiny(1), "sub/b.png": tiny(1)}) for name in ("truth", "method"))
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [*list_images(truth).images] == ["a"]
    pairing = pair_images([("truth", truth), ("ours", method)])
    assert [group.name for group in pairing.groups] == ["a"]
    assert ["sub" in sentence for sentence in pairing.unpaired] == [True, True]


def test_names_that_differ_in_suffix_alone_are_refused(write_images):
    folder = write_images("both", {"a.png": tiny(1), "a.jpg": tiny(1)})
    with pytest.raises(UsageError, match="suffixes alone"):
        list_images(folder)


def test_batches_hold_one_size_in_order_and_failures_in_their_places(write_images, tmp_path):
    sizes = {"a": 12, "b": 12, "c": 20, "d": 12, "e": 12, "f": 12}
    truth = write_images("truth", {f"{name}.png": tiny(1, side) for name, side in sizes.items()})
    ours = write_images("ours", {f"{name}.png": tiny(2, side) for name, side in sizes.items()})
    write_images("ours", {"e.png": tiny(2, 13)})
    (ours / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    groups = pair_images([("truth", truth), ("ours", ours)]).groups
    results = list(read_batches(groups, batch_size=2, device="cpu", has_truth=True, has_background=False))
    shown = [result.names if isinstance(result, ImageBatch) else result.name for result in results]
    assert shown == ["b", ("a",), ("c",), "e", ("d", "f")]
    batch = results[-1]
    assert batch.images.shape == (2, 2, 3, 12, 12)
    assert batch.truth.unique().item() == 1
    assert batch.restored.unique().item() == 2
    reasons = {result.name: result.reason for result in results if isinstance(result, FailedImage)}
    assert "differ in size" in reasons["e"]
    assert "13x13" in reasons["e"]
    assert "\n" not in reasons["b"]


def test_truth_methods_and_background_keep_their_places():
    import torch

    images = torch.arange(4, dtype=torch.uint8)[None, :, None, None, None].expand(1, 4, 3, 2, 2)
    batch = ImageBatch(("a",), images, has_truth=True, has_background=True)
    assert batch.truth.unique().tolist() == [0]
    assert batch.restored[0, :, 0, 0, 0].tolist() == [1, 2]
    assert batch.truth_and_restored[0, :, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch.background.unique().tolist() == [3]
    bare = ImageBatch(("a",), images, has_truth=False)
    assert bare.restored.shape[1] == 4
    for name in ("truth", "background", "truth_and_restored"):
        with pytest.raises(ValueError, match="has no"):
            getattr(bare, name)


def test_16_bits_are_rounded(tmp_path):
    values = np.array([0, 128, 129, 257, 65535 - 129, 65535], np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", np.broadcast_to(values[None, :, None], (4, 6, 3)).copy(), photometric="rgb")
    assert read_image(tmp_path / "deep.tif")[0, :, 0].tolist() == [0, 0, 1, 1, 254, 255]


def test_usual_columns_are_those_that_can_be_measured():
    assert [column.name for column in choose_columns(None, [])] == ["niqe"]
    assert "fid" in [column.name for column in choose_columns(None, ["reference"])]
    usual = [column.name for column in choose_columns(None, ["truth"], also=frozenset({"deg-over-1"}))]
    assert {"psnr", "psnr-matched", "lpips-vgg", "deg", "deg-over-1"} <= set(usual)
    assert "lmd" not in usual
    assert choose_columns("all", ["truth", "reference", "background"]) == COLUMNS
    assert [column.name for column in choose_columns("ssim, psnr", ["truth"])] == ["psnr", "ssim"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [("psnr,fame", "knows no 'fame'"), ("psnr", "needs --truth"), ("fid", "needs --reference"), (" , ", "nothing")],
)
def test_columns_that_cannot_be_measured_are_refused(asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_columns(asked, [])
