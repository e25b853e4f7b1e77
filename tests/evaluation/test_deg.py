from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gfprestore.align import align_face, face_template, similarity_transform
from gfprestore.errors import WeightsError
from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.deg import (
    ARCFACE_TEMPLATE,
    DegMetric,
    angle_degrees,
    crop_for_arcface,
    crop_for_gray,
    load_recogniser,
)
from gfprestore.geometry import map_points
from gfprestore.photofile import read_photo


def save_recogniser(path: Path, channels: int) -> Path:
    """A TorchScript network whose embedding is the image's mean over each quarter of its rows."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.AdaptiveAvgPool2d((4, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network.eval()).save(str(path))
    return path


def test_angles_of_known_vectors():
    first = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    second = torch.tensor([[0.0, 3.0], [5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(angle_degrees(first, second), [90, 0, 45, 180], atol=1e-6)
    # The arc cosine of a double would give 0 or about 1e-6 here.
    tiny = angle_degrees(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert tiny.item() == pytest.approx(np.rad2deg(1e-9), rel=1e-6)


def test_equal_vectors_are_at_exactly_no_angle():
    vectors = torch.randn(50, 512)
    assert angle_degrees(vectors, vectors.clone()).max() == 0


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_template_points_land_where_the_recogniser_looks(size):
    points = face_template(size)
    rows, columns = np.mgrid[:size, :size]
    crop = np.zeros((size, size))
    width = size / 64
    expected = map_points(similarity_transform(points, ARCFACE_TEMPLATE), points)
    for x, y in points:
        crop = np.zeros((size, size)) + np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
        image = torch.from_numpy(crop).float().expand(1, 3, -1, -1)
        seen = crop_for_arcface(image)[0, 0].double().numpy()
        down, across = np.mgrid[:112, :112]
        centre = [(seen * across).sum() / seen.sum(), (seen * down).sum() / seen.sum()]
        wanted = expected[np.argmin(np.abs(points - [x, y]).sum(axis=1))]
        np.testing.assert_allclose(centre, wanted, atol=0.05)
    # No similarity brings all five points to the other template; the best one misses by about a pixel.
    assert np.abs(expected - ARCFACE_TEMPLATE).max() < 3


def test_small_crops_are_warped_as_opencv_does(make_image):
    crop = cv2.GaussianBlur(make_image(256, 256, 1), (0, 0), 2)
    matrix = similarity_transform(face_template(256), ARCFACE_TEMPLATE)
    expected = cv2.warpAffine(crop.astype(np.float32), matrix, (112, 112), flags=cv2.INTER_LINEAR)
    seen = crop_for_arcface(torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()).float())
    # OpenCV rounds positions to a 32nd of a pixel.
    assert np.abs(seen[0].permute(1, 2, 0).numpy() - expected).mean() < 0.2


def test_gray_input_is_the_published_one():
    image = torch.tensor([10.0, 100.0, 200.0])[None, :, None, None].expand(1, 3, 512, 512)
    gray = crop_for_gray(image)
    assert gray.shape == (1, 1, 128, 128)
    assert gray.mean().item() == pytest.approx(0.2989 * 10 + 0.587 * 100 + 0.114 * 200, rel=1e-5)


@pytest.mark.parametrize(("channels", "is_gray"), [(3, False), (1, True)])
def test_scripted_recognisers_of_both_kinds(tmp_path, channels, is_gray, make_image):
    embed = load_recogniser(save_recogniser(tmp_path / "net.pt", channels), "cpu")
    images = [make_image(64, 64, seed).transpose(2, 0, 1) for seed in (0, 1)]
    batch = ImageBatch(("a",), torch.from_numpy(np.stack([images[0], images[0], images[1]]))[None], has_truth=True)
    values = DegMetric(embed).measure(batch)
    assert values["deg"][0, 0] == 0
    assert np.isnan(values["deg-over-1"][0, 0])
    assert values["deg"][0, 1] == values["deg-over-1"][0, 1] > 1
    assert embed(torch.from_numpy(images[0])[None]).shape == (1, 16)


def test_images_that_are_no_crops_cannot_be_measured(tmp_path):
    metric = DegMetric(load_recogniser(save_recogniser(tmp_path / "net.pt", 3), "cpu"))
    batch = ImageBatch(("a", "b"), torch.zeros(2, 4, 3, 64, 80, dtype=torch.uint8), has_truth=True)
    values = metric.measure(batch)
    assert list(values) == ["deg", "deg-over-1"]
    for angles in values.values():
        assert angles.shape == (2, 3)
        assert np.isnan(angles).all()


def test_files_that_are_no_recogniser_are_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no")
    (tmp_path / "text.pt").write_text("no")
    for name in ("text.onnx", "text.pt"):
        with pytest.raises(WeightsError, match="metric-weights"):
            load_recogniser(tmp_path / name, "cpu")
    with pytest.raises(WeightsError, match="112x112"):
        load_recogniser(save_recogniser(tmp_path / "net.pt", 2), "cpu")


@pytest.mark.weights
def test_different_people_are_farther_apart_than_one_person_at_64_pixels(real_weights, real_photos):
    from gfprestore.detect import build_detector
    from gfprestore.weights import read_state_dict

    state = read_state_dict(real_weights / "detection_mobilenet0.25_Final.pth")
    detector = build_detector(state, device="cpu", threshold=0.6, min_face=16.0, rotations=False)
    photos = [read_photo(real_photos / "scratched" / f"{name}.png") for name in "abcd"]
    found = detector.detect([photo.pixels for photo in photos])
    crops = [align_face(p, faces[0], 512).crop for p, faces in zip(photos, found, strict=True) if faces]
    assert len(crops) >= 3
    embed = load_recogniser(real_weights / "w600k_mbf.onnx", "cpu")

    def embedding(crop: np.ndarray) -> torch.Tensor:
        return embed(torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()))

    small = [cv2.resize(cv2.resize(c, (64, 64), interpolation=cv2.INTER_AREA), (512, 512)) for c in crops]
    truths, lows = torch.cat([embedding(c) for c in crops]), torch.cat([embedding(c) for c in small])
    assert angle_degrees(truths, torch.cat([embedding(c.copy()) for c in crops])).max() == 0
    same = angle_degrees(lows, truths)
    others = angle_degrees(truths[:, None], truths[None])[~torch.eye(len(crops), dtype=torch.bool)]
    assert others.min() > same.max()
