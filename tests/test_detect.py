"""Detection: facexlib's numbers from facexlib's network, exact frames, and the faces of real photos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gfprestore.align import FACE_TEMPLATE
from gfprestore.detect import FaceDetector, build_detector
from gfprestore.detection.face_choice import NOT_FROM_THE_FRONT
from gfprestore.detection.network import DetectionNetwork, build_network, load_network
from gfprestore.detection.priors import decode_faces, prior_boxes
from gfprestore.errors import WeightsError
from gfprestore.geometry import map_points
from gfprestore.photo import DetectedFace
from gfprestore.statedict import load_state_dict
from gfprestore.torch_engine import TorchEngine

pytestmark = pytest.mark.usefixtures("one_thread")

OFFICIAL = "detection_mobilenet0.25_Final.pth"


def random_state(kind: str) -> dict[str, torch.Tensor]:
    """Random weights whose normalisations keep the signal alive, so that scores spread over 0 to 1."""
    torch.manual_seed(1)
    network = build_network(kind)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 64, 64) * 60)
        for head in [*network.ClassHead, *network.BboxHead, *network.LandmarkHead]:
            head.conv1x1.weight.normal_(0, 0.3)
    return network.state_dict()


def textured_photo(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def assert_equals_facexlib(state: dict[str, torch.Tensor], photo: np.ndarray, threshold: float) -> int:
    network = load_network(state)
    with torch.no_grad():
        # A threshold of 1 on the overlap keeps every box: only the order is left to sort out.
        official = network.detect_faces(photo[:, :, ::-1].copy(), threshold, nms_threshold=1.0)
    (output,) = TorchEngine(DetectionNetwork(network), "cpu", "fp32").run(photo[None])
    scores, boxes, landmarks = decode_faces(output[0], photo.shape[:2], threshold)
    ours = np.concatenate([boxes + 0.5, scores[:, None], landmarks.reshape(-1, 10) + 0.5], axis=1)
    assert len(ours) == len(official)
    # Rounding may swap equal scores, so each row looks for its twin.
    twins = np.abs(ours[:, None] - official[None]).max(axis=2).argmin(axis=1)
    assert len(set(twins)) == len(ours)
    np.testing.assert_allclose(ours, official[twins], rtol=1e-3, atol=0.02)
    return len(ours)


@pytest.mark.parametrize("kind", ["mobile0.25", "resnet50"])
def test_equals_facexlib_with_random_weights(kind: str) -> None:
    assert assert_equals_facexlib(random_state(kind), textured_photo(128, 96), 0.5) > 5


@pytest.mark.weights
def test_equals_facexlib_with_official_weights(real_weights: Path, real_photos: Path) -> None:
    photo = np.array(Image.open(real_photos / "group" / "Solvay_conference_1927.png").convert("RGB"))
    assert assert_equals_facexlib(load_state_dict(real_weights / OFFICIAL), photo, 0.5) > 29


def test_released_names_and_half_floats_load_and_steps_may_be_missing() -> None:
    state = random_state("mobile0.25")
    stored = {
        f"module.{name}": tensor.half() for name, tensor in state.items() if not name.endswith("num_batches_tracked")
    }
    loaded = load_network(stored).state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(loaded[name], tensor.half().float())


def test_other_weights_are_refused() -> None:
    state = random_state("mobile0.25")
    first = next(iter(state))
    for wrong in (
        {},
        {"conv.weight": torch.zeros(3)},
        {name: tensor for name, tensor in state.items() if name != first},
        state | {first: torch.zeros(1)},
        state | {"extra.weight": torch.zeros(1)},
    ):
        with pytest.raises(WeightsError, match="--detector"):
            load_network(wrong)


class BlobEngine:
    """Stands in for the network: a red blob with a green one below it, towards the chin, is a face, exactly placed.

    The red blob's middle is the landmarks' middle, and the face's box is eight times as wide as the blob.
    """

    device = "cpu"
    precision = "fp32"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, batch: np.ndarray) -> tuple[np.ndarray]:
        self.batches.append(len(batch))
        return (np.stack([self.look_at(photo) for photo in batch]),)

    def look_at(self, photo: np.ndarray) -> np.ndarray:
        priors = prior_boxes(*photo.shape[:2])
        output = np.zeros((len(priors), 15), np.float32)
        # Padding and background have equal red and blue, or less red.
        red = np.clip(photo[..., 0].astype(float) - photo[..., 2] - 30, 0, None)
        green = np.clip(photo[..., 1].astype(float) - photo[..., 2], 0, None)
        mask = (red > 90).astype(np.uint8)
        count, labels = cv2.connectedComponents(mask, connectivity=8)
        for label in range(1, count):
            area = cv2.dilate((labels == label).astype(np.uint8), np.ones((5, 5), np.uint8))
            middle, extent = centroid(red * area)
            below = green[int(middle[1] + 0.7 * extent) :, :][
                :, int(max(0, middle[0] - extent)) : int(middle[0] + extent)
            ]
            if below[: int(2 * extent)].sum() < 30:
                continue
            side = 8 * extent
            row = int(np.argmin(np.abs(np.log(priors[:, 2] / side)) * 1e6 + np.hypot(*(priors[:, :2] - middle).T)))
            x, y, prior = priors[row].astype(float)
            landmarks = (FACE_TEMPLATE - FACE_TEMPLATE.mean(axis=0)) * (side / 280) + middle + 0.5
            output[row, 0] = 0.95
            output[row, 1:3] = (middle + 0.5 - [x, y]) / (0.1 * prior)
            output[row, 3:5] = np.log(side / prior) / 0.2
            output[row, 5:] = ((landmarks - [x, y]) / (0.1 * prior)).ravel()
        return output


def centroid(weight: np.ndarray) -> tuple[np.ndarray, float]:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    total = weight.sum()
    return np.array([(x * weight).sum(), (y * weight).sum()]) / total, float(np.sqrt(total / weight.max()))


def blob_photo(width: int, height: int, faces: list[tuple[int, int, int]], dtype: type = np.uint8) -> np.ndarray:
    """Faces (left, top, side of the red blob)."""
    photo = np.zeros((height, width, 3), dtype)
    full = np.iinfo(dtype).max
    for left, top, side in faces:
        photo[top : top + side, left : left + side, 0] = full
        photo[top + side + side // 4 : top + 2 * side, left : left + side, 1] = full
    return photo


def middle_of(face: DetectedFace) -> np.ndarray:
    return face.box.reshape(2, 2).mean(axis=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(300, 200), (1000, 731), (2700, 1503)], ids=["enlarged", "middling", "large"])
def test_faces_lie_where_they_are_in_the_photo(size: tuple[int, int], dtype: type) -> None:
    unit = max(size) // 60
    blobs = [(8 * unit, 6 * unit, unit), (38 * unit, 20 * unit, 2 * unit)]
    photo = blob_photo(*size, blobs, dtype)
    (faces,) = FaceDetector(BlobEngine(), 0.6, 8.0).detect([photo])
    assert [face.score for face in faces] == pytest.approx([0.95, 0.95])
    for face, (left, top, side) in zip(faces, reversed(blobs), strict=True):
        expected = np.array([left, top]) + (side - 1) / 2
        # A few hundredths of a pixel of the view, in pixels of the photo.
        np.testing.assert_allclose(middle_of(face), expected, atol=0.06 * max(1, max(size) / 640))
        np.testing.assert_allclose(face.landmarks.mean(axis=0), middle_of(face), atol=1e-3)
        assert face.box[2] - face.box[0] == pytest.approx(8 * side, rel=0.1)


def test_a_batch_equals_singles_and_equal_shapes_share_a_run() -> None:
    one, two = blob_photo(320, 256, [(100, 60, 8)]), blob_photo(320, 256, [(200, 90, 8), (60, 100, 10)])
    other, none = blob_photo(640, 480, [(300, 200, 20)]), np.zeros((256, 320, 3), np.uint8)
    engine = BlobEngine()
    detector = FaceDetector(engine, 0.6, 8.0, rotations=False)
    together = detector.detect([one, two, other, none])
    # Views of 320x256, 640x512, 640x480 and 1280x960: the small photos share their two.
    assert sorted(engine.batches) == [1, 1, 3, 3]
    apart = [detector.detect([photo])[0] for photo in (one, two, other, none)]
    assert [len(faces) for faces in together] == [1, 2, 1, 0]
    for found, expected in zip(together, apart, strict=True):
        for face, twin in zip(found, expected, strict=True):
            np.testing.assert_array_equal(face.landmarks, twin.landmarks)
            np.testing.assert_array_equal(face.box, twin.box)
    assert detector.detect([]) == []


def test_a_batch_equals_singles_through_a_real_network() -> None:
    engine = TorchEngine(DetectionNetwork(load_network(random_state("mobile0.25"))), "cpu", "fp32")
    detector = FaceDetector(engine, threshold=0.9, min_face=4.0, rotations=False)
    photos = [textured_photo(128, 96), textured_photo(128, 96)[::-1].copy(), textured_photo(96, 64)]
    together = detector.detect(photos)
    for found, photo in zip(together, photos, strict=True):
        (expected,) = detector.detect([photo])
        assert len(found) == len(expected)
        for face, twin in zip(found, expected, strict=True):
            np.testing.assert_array_equal(face.landmarks, twin.landmarks)


def test_small_faces_of_a_large_photo_are_found_in_tiles_once_each() -> None:
    # Along the lines between tiles too, and large ones across them.
    blobs = [(40, 300, 4), (2180, 300, 4), (2198, 330, 4), (2216, 300, 4), (4330, 300, 4), (2160, 700, 60)]
    photo = blob_photo(4400, 1000, blobs)
    engine = BlobEngine()
    (faces,) = FaceDetector(engine, 0.6, 16.0, rotations=False).detect([photo])
    assert len(faces) == len(blobs)
    found = np.array(sorted(tuple(middle_of(face)) for face in faces))
    expected = np.array(sorted((left + (side - 1) / 2, top + (side - 1) / 2) for left, top, side in blobs))
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_many_views_of_one_shape_do_not_share_one_run() -> None:
    engine = BlobEngine()
    photo = blob_photo(400, 300, [(100, 60, 8)])
    FaceDetector(engine, 0.6, 16.0, rotations=False).detect([photo] * 40)
    # 40 views of 416x320 and of 800x608: as many at once as one large view has pixels.
    assert max(engine.batches) < 40 and sum(engine.batches) == 80


def test_what_is_refused_comes_with_its_reason_and_turns_with_the_photo() -> None:
    upright = blob_photo(600, 400, [(200, 100, 20)])

    class TwoFacedEngine(BlobEngine):
        def look_at(self, photo: np.ndarray) -> np.ndarray:
            output = super().look_at(photo)
            for row in np.flatnonzero(output[:, 0]):
                # Beside each face something whose landmarks all lie in one point.
                other = (row + 16) % len(output)
                output[other] = output[row]
                output[other, 5:] = 0
            return output

    for turns in (0, 1):
        photo = np.ascontiguousarray(np.rot90(upright, turns))
        (found,) = FaceDetector(TwoFacedEngine(), 0.6, 8.0).search([photo])
        assert len(found.faces) == 1
        for item in found.refused:
            assert item.reason == NOT_FROM_THE_FRONT
            low, high = item.face.box.reshape(2, 2)
            assert (low < high).all() and (high > 0).all() and (low < [photo.shape[1], photo.shape[0]]).all()
        assert found.refused


def test_small_faces_and_low_scores_are_left_out() -> None:
    photo = blob_photo(640, 480, [(300, 200, 20), (100, 100, 6)])
    assert len(FaceDetector(BlobEngine(), 0.6, 40.0).detect([photo])[0]) == 2
    assert len(FaceDetector(BlobEngine(), 0.6, 60.0).detect([photo])[0]) == 1
    assert FaceDetector(BlobEngine(), 0.96, 40.0).detect([photo]) == [[]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photo_is_found_and_brought_back(turns: int) -> None:
    upright = blob_photo(600, 400, [(200, 100, 20), (400, 150, 12)])
    (expected,) = FaceDetector(BlobEngine(), 0.6, 8.0).detect([upright])
    turned = np.ascontiguousarray(np.rot90(upright, turns))
    assert FaceDetector(BlobEngine(), 0.6, 8.0, rotations=False).detect([turned]) == [[]]
    (found,) = FaceDetector(BlobEngine(), 0.6, 8.0).detect([turned])
    # The pixel at (x, y) of a photo w wide goes to (y, w - 1 - x).
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    for face, twin in zip(found, expected, strict=True):
        points, size = twin.landmarks, [600, 400]
        for _ in range(turns):
            quarter[1, 2] = size[0] - 1
            points, size = map_points(quarter, points), size[::-1]
        np.testing.assert_allclose(face.landmarks, points, atol=1e-6)


REAL_FACES = {
    "group/Solvay_conference_1927.png": 29,
    "large/20200320.101220.jpg": 1,
    "large/name with spaces.jpg": 1,
    "old/a.png": 1,
    "old/b.png": 1,
    "old/c.png": 1,
    "old/d.png": 0,
    "old/e.png": 0,
    "old/f.png": 0,
    "old/g.png": 1,
    "old/h.png": 1,
    "scratched/a.png": 1,
    "scratched/b.png": 1,
    "scratched/c.png": 1,
    "scratched/d.png": 2,
}
"""Faces counted by eye; two women of old/d and old/f are too small to restore."""


def read_upright(path: Path) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


@pytest.fixture(scope="module")
def official_detector(real_weights: Path) -> FaceDetector:
    state = load_state_dict(real_weights / OFFICIAL)
    return build_detector(state, device="cpu", threshold=0.6, min_face=16.0)


@pytest.mark.weights
def test_the_faces_of_real_photos(official_detector: FaceDetector, real_photos: Path) -> None:
    detector = official_detector
    found = {name: len(detector.detect([read_upright(real_photos / name)])[0]) for name in REAL_FACES}
    assert found == REAL_FACES


@pytest.mark.weights
def test_hundreds_of_real_faces_and_a_photo_on_its_side(official_detector: FaceDetector, real_photos: Path) -> None:
    detector = official_detector
    group = read_upright(real_photos / "group" / "Solvay_conference_1927.png")
    (upright,) = detector.detect([group])
    # Nine groups of 29 in one photo.
    assert 250 <= len(detector.detect([np.tile(group, (3, 3, 1))])[0]) <= 265
    (turned,) = detector.detect([np.ascontiguousarray(np.rot90(group))])
    assert len(turned) >= 28
    places = np.array([face.landmarks.mean(axis=0) for face in upright])
    for face in turned:
        y, x = face.landmarks.mean(axis=0)
        assert np.linalg.norm(places - [group.shape[1] - 1 - x, y], axis=1).min() < 4


@pytest.mark.weights
def test_small_faces_in_a_large_photo_are_found_in_tiles(official_detector: FaceDetector, real_photos: Path) -> None:
    group = read_upright(real_photos / "group" / "Solvay_conference_1927.png")
    large = np.full((3600, 4800, 3), 90, np.uint8)
    # Across the middle, where the tiles meet: on a copy of 2560 pixels these faces are 20 pixels wide.
    large[1500 : 1500 + group.shape[0], 1700 : 1700 + group.shape[1]] = group
    (faces,) = official_detector.detect([large])
    (alone,) = official_detector.detect([group])
    places = np.array([face.landmarks.mean(axis=0) for face in faces]) - [1700, 1500]
    nearest = [np.linalg.norm(places - face.landmarks.mean(axis=0), axis=1).min() for face in alone]
    assert sum(distance < 4 for distance in nearest) >= len(alone) - 1 >= 28


@pytest.mark.weights
def test_a_mirrored_photo_has_its_faces_at_the_mirrored_places(
    official_detector: FaceDetector, real_photos: Path
) -> None:
    """A frame that is half a pixel off is a whole one off here, for the mirror turns the error round."""
    group = read_upright(real_photos / "group" / "Solvay_conference_1927.png")
    (faces,) = official_detector.detect([group])
    (mirrored,) = official_detector.detect([np.ascontiguousarray(group[:, ::-1])])
    places = np.array([face.landmarks.mean(axis=0) for face in faces])
    back = np.array([[group.shape[1] - 1 - x, y] for x, y in (face.landmarks.mean(axis=0) for face in mirrored)])
    shifts = [(place - back[np.linalg.norm(back - place, axis=1).argmin()])[0] for place in places]
    # All but one look the same way, and the network is not quite symmetric; half a pixel forgotten makes it 1.2.
    assert abs(np.median(shifts)) < 0.6
