"""Faces of the real photos, cut by eye positions read off by hand."""

from __future__ import annotations

import cv2
import numpy as np

from gfprestore.align import cut_crop, face_template, similarity_transform

EYES = {
    "old/a.png": ((128.8, 171.1), (196.1, 168.5)),
    "old/h.png": ((203.8, 163.5), (271.5, 167.6)),
    "scratched/b.png": ((104.8, 102.2), (144.6, 100.8)),
}
"""Left and right eye as seen in the picture, (x, y) in photo pixels."""


def cut_face(photos, name, size=512):
    """RGB uint8 (size, size, 3) of one face, in the face template's frame."""
    pixels = np.ascontiguousarray(cv2.imread(str(photos / name))[..., ::-1])
    to_crop = similarity_transform(np.array(EYES[name]), face_template(size)[:2])
    return cut_crop(pixels, to_crop, size)
