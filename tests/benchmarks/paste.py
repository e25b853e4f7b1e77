"""Time and memory of pasting three faces beside the official way, and time of one face by its size on the canvas.

    python tests/benchmarks/paste.py

Three faces are pasted into a photo of 12 megapixels at x2. The official way (facexlib's
`FaceRestoreHelper.paste_faces_to_input_image` with its parsing mask off) warps and blends the whole canvas in float64
for every face. It is run through facexlib itself. Peak memory is that of a whole process for each way: the interpreter,
the photo and the canvas (144 MB) are in both, and torch, half a gigabyte, comes along with either.

The second table is processor time with the compiled kernels, and without them as where there are none.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np

from gfprestore import paste
from gfprestore.align import FACE_TEMPLATE, align_face
from gfprestore.blending.masks import border_mask, oval_mask
from gfprestore.native.library import load_library
from gfprestore.paste import FacePatch, paste_faces
from gfprestore.photo import DetectedFace, Photo, PhotoMetadata

WIDTH, HEIGHT, SCALE, SIZE = 4000, 3000, 2, 512
FACES = ((1000, 1500, 500), (2000, 1400, 600), (3000, 1600, 700))
"""Centre and side of the generator's frame in the photo, in pixels."""


def make_photo() -> Photo:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return Photo(cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), PhotoMetadata("PNG"))


def landmarks(x: float, y: float, side: float) -> np.ndarray:
    return (FACE_TEMPLATE - 256) * (side / SIZE) + [x, y]


def our_way(photo: Photo, canvas: np.ndarray) -> float:
    faces = [align_face(photo, DetectedFace(np.zeros(4), landmarks(*face), 1.0), SIZE) for face in FACES]
    changed = [cv2.GaussianBlur(face.crop, (0, 0), 2) for face in faces]
    start = time.perf_counter()
    mask = border_mask(SIZE)
    patches = [FacePatch(face.crop, crop, mask, face.to_crop) for face, crop in zip(faces, changed, strict=True)]
    paste_faces(canvas, photo.pixels, patches, canvas_is_resized_photo=True)
    return time.perf_counter() - start


def official_way(photo: Photo, canvas: np.ndarray) -> float:
    from facexlib.utils.face_restoration_helper import FaceRestoreHelper

    helper = FaceRestoreHelper.__new__(FaceRestoreHelper)  # Its constructor downloads networks that pasting never uses.
    helper.face_size, helper.upscale_factor, helper.crop_ratio = (SIZE, SIZE), SCALE, (1, 1)
    helper.use_parse, helper.input_img, helper.save_ext, helper.pad_input = False, photo.pixels, "png", False
    helper.face_template, helper.pad_blur = FACE_TEMPLATE, False
    helper.all_landmarks_5 = [landmarks(*face) for face in FACES]
    helper.affine_matrices, helper.inverse_affine_matrices = [], []
    helper.cropped_faces, helper.restored_faces = [], []
    helper.align_warp_face()
    helper.restored_faces = [cv2.GaussianBlur(crop, (0, 0), 2) for crop in helper.cropped_faces]
    start = time.perf_counter()
    helper.get_inverse_affine()
    helper.paste_faces_to_input_image(upsample_img=canvas)
    return time.perf_counter() - start


def measure(way: str, repeats: int) -> None:
    """Runs one way in this process and prints its median seconds and the growth of its peak memory in MiB."""
    photo = make_photo()
    canvas = cv2.resize(photo.pixels, (WIDTH * SCALE, HEIGHT * SCALE), interpolation=cv2.INTER_LANCZOS4)
    run = {"ours": our_way, "official": official_way}[way]
    seconds = [run(photo, canvas) for _ in range(repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{statistics.median(seconds):.3f} {peak:.0f}")


def processor_milliseconds(side: int, dtype: type, resized: bool) -> float:
    """Median for a turned oval face whose crop takes `side` pixels of the canvas."""
    level = 257 if dtype == np.uint16 else 1
    photo = (np.random.default_rng(0).integers(0, 256, (side, side, 3)) * level).astype(dtype)
    canvas = cv2.resize(photo, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC)
    turned = landmarks(0, 0, side / 2) @ np.array([[0.98, 0.2], [-0.2, 0.98]]) + side / 2
    face = align_face(Photo(photo, PhotoMetadata("PNG")), DetectedFace(np.zeros(4), turned, 1.0), SIZE)
    changed = cv2.GaussianBlur(face.crop, (0, 0), 2).astype(np.float32)
    patch = FacePatch(face.crop, changed, oval_mask(SIZE), face.to_crop)
    times = []
    for _ in range(10):
        start = time.process_time()
        paste_faces(canvas, photo, [patch], canvas_is_resized_photo=resized)
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def print_sizes() -> None:
    print(f"{'one face, ms of processor time':32} {'kernels':>8} {'cv2':>8}")
    for side in (200, 600, 1500, 4000):
        for dtype in (np.uint8, np.uint16):
            for resized in (True, False):
                name = f"{side} px, {dtype.__name__}{'' if resized else ', drawn background'}"
                ours = processor_milliseconds(side, dtype, resized)
                paste.load_library = lambda: None
                print(f"{name:32} {ours:8.1f} {processor_milliseconds(side, dtype, resized):8.1f}")
                paste.load_library = load_library


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    rows = {}
    for way, repeats in (("ours", 5), ("official", 1)):
        out = subprocess.run([sys.executable, __file__, way, str(repeats)], check=True, capture_output=True, text=True)
        seconds, peak = out.stdout.split()[-2:]
        rows[way] = (float(seconds), int(peak))
    print(f"{'pasting 3 faces, 12 MP x2':32} {'seconds':>8} {'peak MiB':>9}")
    for way, (seconds, peak) in rows.items():
        print(f"{way:32} {seconds:8.3f} {peak:9d}")
    print(f"{'ratio':32} {rows['official'][0] / rows['ours'][0]:8.1f} {rows['official'][1] / rows['ours'][1]:9.1f}")
    # Last: a process that is started has the peak of this one for its least.
    print_sizes()


if __name__ == "__main__":
    main()
