"""Cutting a face out of its photo into the generator's frame (FFHQ alignment, arXiv:1812.04948, appendix C).

The frame is that of the released GFP-GAN weights: facexlib's five-point template for 512x512 crops.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.geometry import Transform, compose, invert, magnification, map_points, scaling
from gfprestore.native.library import load_library
from gfprestore.native.resampling import warp_lanczos
from gfprestore.photo import AlignedFace, DetectedFace, Photo, Pixels

FACE_TEMPLATE: NDArray[np.float64] = np.array(
    [
        [192.98138, 239.94708],  # left eye, as seen in the picture
        [318.90277, 240.1936],
        [256.63416, 314.01935],  # nose
        [201.26117, 371.41043],  # left corner of the mouth
        [313.08905, 371.15118],
    ]
)
"""Five landmarks (x, y) in the 512x512 crop: the mean FFHQ face, from facexlib's `FaceRestoreHelper`."""

TEMPLATE_SIZE = 512
"""Side of the crop that `FACE_TEMPLATE` is given in."""


def face_template(size: int) -> NDArray[np.float64]:
    """Returns the five landmarks (5, 2) in a crop of `size` x `size` pixels."""
    return map_points(scaling((TEMPLATE_SIZE, TEMPLATE_SIZE), (size, size)), FACE_TEMPLATE)


def similarity_transform(source: NDArray[np.float64], target: NDArray[np.float64]) -> Transform:
    """Returns the rotation, uniform scale and shift that bring `source` nearest to `target` in least squares.

    Umeyama's closed form (IEEE PAMI 13(4), 1991, eq. 40 to 42); never a reflection.

    Args:
        source: Points (N, 2), (x, y), not all the same.
        target: Points (N, 2).

    Raises:
        ValueError: All source points coincide.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_offset, target_offset = source - source_mean, target - target_mean
    spread = float((source_offset**2).sum())
    if spread == 0.0:
        raise ValueError("the landmarks coincide")
    left, singular, right = np.linalg.svd(target_offset.T @ source_offset)
    handedness = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * handedness) @ right
    scale = float((singular * handedness).sum()) / spread
    linear = scale * rotation
    return np.column_stack([linear, target_mean - linear @ source_mean])


def alignment_residual(landmarks: NDArray[np.float64]) -> float:
    """Returns how far five landmarks are from any similarity image of the mean face, relative to its eye distance.

    Root mean square over the five points; about 0.05 for a frontal face, over 0.25 for a full profile or nonsense.
    """
    to_crop = similarity_transform(landmarks, FACE_TEMPLATE)
    misses = map_points(to_crop, landmarks) - FACE_TEMPLATE
    eye_distance = float(np.linalg.norm(FACE_TEMPLATE[1] - FACE_TEMPLATE[0]))
    return float(np.sqrt((misses**2).sum(axis=1).mean())) / eye_distance


def align_face(photo: Photo, face: DetectedFace, size: int) -> AlignedFace:
    """Cuts one face into the generator's frame.

    Args:
        photo: The whole photo.
        face: A face found in it; five landmarks that do not coincide.
        size: Side of the crop in pixels.
    """
    to_crop = similarity_transform(face.landmarks, face_template(size))
    return AlignedFace(face=face, crop=cut_crop(photo.pixels, to_crop, size), to_crop=to_crop)


def whole_photo_face(photo: Photo, size: int) -> AlignedFace:
    """Takes a photo that is a face crop already: its whole area becomes the generator's frame."""
    height, width = photo.pixels.shape[:2]
    to_crop = scaling((width, height), (size, size))
    corners = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
    face = DetectedFace(box=corners, landmarks=map_points(invert(to_crop), face_template(size)), score=1.0)
    return AlignedFace(face=face, crop=cut_crop(photo.pixels, to_crop, size), to_crop=to_crop)


def cut_crop(pixels: Pixels, to_crop: Transform, size: int) -> Pixels:
    """Warps the square of the generator's frame out of a photo.

    A face larger than the crop is averaged down first, since a warp alone would skip pixels and turn film grain and
    scan texture into false detail. A smaller one is enlarged with the kernel of `resize_photo`: the crop is then part
    of the plainly enlarged photo, and what restoration takes out of it goes from the photo too. What lies beyond the
    photo's edge is mirrored, as in FFHQ.

    Args:
        pixels: RGB uint8 or uint16, (H, W, 3).
        to_crop: Photo pixel centres -> crop pixel centres.
        size: Side of the crop in pixels.

    Returns:
        RGB, dtype of `pixels`, (size, size, 3).
    """
    window, to_crop = _shrunk_window(pixels, to_crop, size)
    library = load_library()
    if library is not None:
        return warp_lanczos(library, window, to_crop, size)
    # This places samples on a grid of 1/32 pixel.
    crop = cv2.warpAffine(window, to_crop, (size, size), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return cast(Pixels, crop)


def _shrunk_window(pixels: Pixels, to_crop: Transform, size: int) -> tuple[Pixels, Transform]:
    """Returns the part of a photo that a crop sees, averaged down to the crop's sampling, and its transform."""
    height, width = pixels.shape[:2]
    corners = map_points(invert(to_crop), [[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]])
    # Four pixels of Lanczos reach, one of rounding.
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 5, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 6, low + 1, [width, height])
    window = pixels[low[1] : high[1], low[0] : high[0]]
    from_window = np.array([[1.0, 0.0, low[0]], [0.0, 1.0, low[1]]])
    window_size = (int(high[0] - low[0]), int(high[1] - low[1]))
    shrink = magnification(to_crop)
    if shrink >= 1.0:
        return window, compose(to_crop, from_window)
    shrunk_size = (max(1, round(window_size[0] * shrink)), max(1, round(window_size[1] * shrink)))
    shrunk = cast(Pixels, cv2.resize(window, shrunk_size, interpolation=cv2.INTER_AREA))
    return shrunk, compose(to_crop, compose(from_window, scaling(shrunk_size, window_size)))
