"""Makes the sample album: old photos of people who do not exist.

    python examples/make_album.py FACES examples/album

FACES is a folder of at least 48 square pictures of faces, framed like FFHQ; they are taken in the order of their names.
Those of the album that ships were drawn by MobileStyleGAN, a generator trained on FFHQ. The same pictures and the same
`--seed` give the same album.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scan import (
    Picture,
    crease,
    darken_corners,
    dust,
    fade,
    grain,
    gray,
    lay_on_scanner,
    print_on_paper,
    scratch,
    smooth_noise,
    soften,
    stain,
)

_CREAM = (0.93, 0.9, 0.82)
_WHITE = (0.95, 0.95, 0.93)


class Faces:
    """The pictures that people are taken from."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))

    def square(self, number: int) -> Picture:
        """One picture whole, RGB float32, (512, 512, 3), 0 to 1."""
        with Image.open(self._files[number]) as image:
            return np.asarray(image.convert("RGB").resize((512, 512)), np.float32) / 255

    def person(self, number: int) -> tuple[Picture, Picture]:
        """One picture, and the mask of the person in it, (512, 512, 1), 0 to 1."""
        square = self.square(number)
        marks = np.full((256, 256), cv2.GC_PR_BGD, np.uint8)
        cv2.ellipse(marks, (128, 125), (92, 118), 0, 0, 360, cv2.GC_PR_FGD, -1)
        cv2.ellipse(marks, (128, 285), (125, 80), 0, 0, 360, cv2.GC_PR_FGD, -1)
        cv2.ellipse(marks, (128, 130), (60, 88), 0, 0, 360, cv2.GC_FGD, -1)
        cv2.ellipse(marks, (128, 285), (108, 62), 0, 0, 360, cv2.GC_FGD, -1)
        marks[:65, :35] = marks[:65, -35:] = cv2.GC_BGD
        cv2.setRNGSeed(number)
        models = np.zeros((2, 1, 65))
        bgr = np.ascontiguousarray(cv2.resize(to_bytes(square), (256, 256), interpolation=cv2.INTER_AREA)[..., ::-1])
        cv2.grabCut(bgr, marks, None, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK)
        mask = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
        _, parts, sizes, _ = cv2.connectedComponentsWithStats(mask)
        mask = (parts == 1 + sizes[1:, cv2.CC_STAT_AREA].argmax()).astype(np.float32)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((11, 11), np.uint8))
        return square, cv2.resize(cv2.GaussianBlur(mask, (0, 0), 1.6), (512, 512))[..., None]


def portrait(faces: Faces, number: int, height: int, *, width: int) -> Picture:
    """Head and shoulders, `width` by `height` pixels."""
    margin = round(256 * (1 - width / height))
    square = faces.square(number)[:, margin : 512 - margin]
    return cv2.resize(square, (width, height), interpolation=cv2.INTER_AREA)


def backdrop(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Canvas that a photographer painted."""
    clouds = 0.07 * smooth_noise(rng, height, width, 150) + 0.02 * smooth_noise(rng, height, width, 40)
    return (0.62 + clouds) * np.asarray([1.0, 0.97, 0.9], np.float32)


def group(faces: Faces, rng: np.random.Generator, rows: list[list[int]], behind: Picture) -> Picture:
    """People in rows before a picture, each row lower than the one before and in front of it."""
    picture = behind.copy()
    height, width = picture.shape[:2]
    side = round(1.5 * width / max(len(row) for row in rows))
    for depth, row in enumerate(rows):
        for place, number in enumerate(row):
            left = round(width * (place + 0.5) / len(row) - side / 2 + rng.normal(0, 0.01) * width)
            up = round(side * (1.0 + 0.78 * (len(rows) - 1 - depth) - rng.uniform(0, 0.05)))
            square, mask = faces.person(number)
            square = cv2.resize(0.5 + (square - square.mean()) * 0.9, (side, side), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)[..., None]
            lay(picture, square, mask, left, height - up)
    return picture


def lay(picture: Picture, square: Picture, mask: Picture, left: int, top: int) -> None:
    """Lays a person into a picture, with a soft shadow on what is behind; what reaches out of it is cut off."""
    side, (height, width) = len(square), picture.shape[:2]
    there = (slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side)))
    here = (slice(there[0].start - top, there[0].stop - top), slice(there[1].start - left, there[1].stop - left))
    under = picture[there] * (1 - 0.3 * cv2.GaussianBlur(mask, (0, 0), 7)[..., None][here])
    picture[there] = under + mask[here] * (square[here] - under)


def house(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A house between trees under a summer sky: nobody is in the picture."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.asarray([0.45, 0.62, 0.85], np.float32) * (1 - y) + np.asarray([0.85, 0.88, 0.88], np.float32) * y
    clouds = np.clip(smooth_noise(rng, height, width, 110) + 0.5 * smooth_noise(rng, height, width, 40), 0, 1.5) * 0.4
    picture = sky + clouds * (0.97 - sky)
    leaves = 0.09 * smooth_noise(rng, height, width, 4) + 0.1 * smooth_noise(rng, height, width, 14)
    skyline = 0.55 + 0.05 * smooth_noise(rng, 1, width, 70) + 0.012 * smooth_noise(rng, 1, width, 9)
    trees = np.clip((y - skyline[0][None]) * height / 4, 0, 1)
    picture += trees * (np.asarray([0.2, 0.3, 0.15], np.float32) * (1 + 3 * leaves) - picture)
    grass = np.asarray([0.42, 0.5, 0.22], np.float32) * (1 + leaves) * (0.75 + 0.4 * y)
    picture += np.clip((y - 0.78) * height / 5, 0, 1) * (grass - picture)
    corner = np.asarray([width, height], np.float32)

    def fill(points: list[tuple[float, float]], colour: tuple[float, float, float]) -> None:
        cover = np.zeros((height, width), np.float32)
        cv2.fillPoly(cover, [np.round(np.asarray(points, np.float32) * corner * 8).astype(np.int32)], 1, cv2.LINE_AA, 3)
        shade = np.asarray(colour, np.float32) * (1 + 0.35 * leaves)
        picture[:] = picture + cover[..., None] * (shade - picture)

    fill([(0.28, 0.5), (0.7, 0.5), (0.7, 0.83), (0.28, 0.83)], (0.84, 0.79, 0.68))
    fill([(0.7, 0.5), (0.8, 0.53), (0.8, 0.81), (0.7, 0.83)], (0.55, 0.51, 0.44))
    fill([(0.24, 0.51), (0.33, 0.31), (0.67, 0.31), (0.73, 0.51)], (0.5, 0.24, 0.18))
    fill([(0.67, 0.31), (0.73, 0.51), (0.83, 0.54)], (0.35, 0.17, 0.13))
    fill([(0.57, 0.24), (0.62, 0.24), (0.62, 0.36), (0.57, 0.36)], (0.48, 0.28, 0.22))
    fill([(0.46, 0.64), (0.53, 0.64), (0.53, 0.83), (0.46, 0.83)], (0.3, 0.2, 0.13))
    for left in (0.32, 0.58):
        fill(
            [(left - 0.005, 0.595), (left + 0.085, 0.595), (left + 0.085, 0.725), (left - 0.005, 0.725)],
            (0.93, 0.92, 0.88),
        )
        fill([(left, 0.6), (left + 0.037, 0.6), (left + 0.037, 0.72), (left, 0.72)], (0.2, 0.25, 0.3))
        fill([(left + 0.043, 0.6), (left + 0.08, 0.6), (left + 0.08, 0.72), (left + 0.043, 0.72)], (0.24, 0.29, 0.34))
    return picture.astype(np.float32)


def exif(date: str, *, orientation: int = 1) -> bytes:
    """EXIF block of a scan: when the photo was taken and how it lies."""
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "Sample album"
    block[0x0131] = "make_album.py"
    block.get_ifd(0x8769)[0x9003] = f"{date} 12:00:00"
    return block.tobytes()


def to_bytes(picture: Picture) -> np.ndarray:
    """RGB uint8, rounded."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def save(picture: Picture, path: Path, date: str, *, quality: int = 80, orientation: int = 1) -> None:
    """Writes a colour JPEG; the pixels are turned so that `orientation` (1 or 6) sets them upright."""
    pixels = np.rot90(picture) if orientation == 6 else picture
    Image.fromarray(to_bytes(pixels)).save(path, quality=quality, exif=exif(date, orientation=orientation))


def black_and_white(faces: Faces, rng: np.random.Generator, folder: Path) -> None:
    """A portrait as a one-channel JPEG, a 16-bit scan, a sepia card and a group."""
    picture = grain(soften(gray(portrait(faces, 24, 500, width=400)), 1.6, 2.0), rng, 0.05)
    picture = scratch(fade(darken_corners(picture, 0.4), (0.1,) * 3, (0.9,) * 3), rng, 9)
    picture = lay_on_scanner(print_on_paper(picture, rng, 22, (0.9,) * 3), rng, 16, 0.75, 0.8)
    one = Image.fromarray(to_bytes(dust(picture, rng, 60))[..., 0])
    one.save(folder / "1952 grandfather.jpg", quality=78, exif=exif("1952:06:01"))

    picture = grain(soften(gray(portrait(faces, 31, 400, width=330)), 1.2, 1.6), rng, 0.025)
    picture = print_on_paper(fade(picture, (0.14,) * 3, (0.84,) * 3), rng, 16, (0.88,) * 3)
    deep = np.round(np.clip(dust(picture, rng, 14), 0, 1)[..., 0] * 65535).astype(np.uint16)
    Image.fromarray(deep).save(folder / "school" / "1961 sixteen bits.png")

    picture = darken_corners(soften(gray(portrait(faces, 38, 560, width=450)), 1.8, 2.4), 0.75)
    picture = fade(grain(picture, rng, 0.04), (0.24, 0.16, 0.1), (0.92, 0.83, 0.66))
    picture = stain(print_on_paper(crease(picture, rng), rng, 26, (0.88, 0.8, 0.66)), rng, 0.22)
    picture = lay_on_scanner(scratch(dust(picture, rng, 70), rng, 5), rng, 14, 0.2, -0.7)
    save(picture, folder / "1931 sepia card.jpg", "1931:04:12")

    people = group(faces, rng, [[24, 45, 38], [41, 31, 44, 2]], backdrop(rng, 545, 740))
    picture = fade(grain(soften(gray(people), 0.9, 1.5), rng, 0.035), (0.1,) * 3, (0.88, 0.87, 0.84))
    picture = lay_on_scanner(print_on_paper(picture, rng, 20, _CREAM), rng, 14, 0.8, 0.5)
    save(scratch(dust(picture, rng, 70), rng, 5), folder / "1958 family.jpg", "1958:12:25")


def colour(faces: Faces, rng: np.random.Generator, folder: Path) -> None:
    """Faded prints, one lying on its side, two friends, a picture without people, one cut out in an oval."""
    picture = grain(soften(portrait(faces, 28, 460, width=460), 1.4, 2.2), rng, 0.03)
    picture = fade(darken_corners(picture, 0.25), (0.25, 0.12, 0.1), (0.98, 0.85, 0.68))
    picture = lay_on_scanner(print_on_paper(picture, rng, 20, _CREAM), rng, 14, 0.78, -1.1)
    save(dust(picture, rng, 50), folder / "1974 aunt.jpg", "1974:08:03", quality=72)

    picture = grain(soften(portrait(faces, 35, 440, width=400), 1.2, 1.9), rng, 0.025)
    picture = fade(picture, (0.08, 0.12, 0.16), (0.9, 0.93, 0.86))
    picture = print_on_paper(scratch(picture, rng, 6), rng, 18, _WHITE)
    save(dust(picture, rng, 40), folder / "1983 on its side.jpg", "1983:07:19", orientation=6)

    garden = soften(house(rng, 400, 560), 5.0, 4.0)
    people = group(faces, rng, [[41, 40]], garden)
    picture = fade(grain(soften(people, 1.1, 1.8), rng, 0.03), (0.16, 0.1, 0.14), (0.95, 0.88, 0.8))
    picture = crease(print_on_paper(stain(picture, rng, 0.3), rng, 16, _WHITE), rng)
    save(dust(picture, rng, 40), folder / "1988 friends.jpg", "1988:05:14", quality=76)

    picture = grain(soften(house(rng, 420, 600), 1.3, 1.9), rng, 0.035)
    picture = fade(darken_corners(picture, 0.3), (0.22, 0.15, 0.13), (0.95, 0.88, 0.75))
    picture = lay_on_scanner(print_on_paper(picture, rng, 18, _CREAM), rng, 12, 0.78, 0.4)
    save(dust(picture, rng, 50), folder / "1969 house.jpg", "1969:09:02")

    picture = fade(
        grain(soften(portrait(faces, 13, 420, width=340), 1.3, 1.8), rng, 0.025), (0.2, 0.14, 0.12), (0.95, 0.88, 0.74)
    )
    height, width = picture.shape[:2]
    oval = np.zeros((height, width), np.uint8)
    cv2.ellipse(oval, (width // 2, height // 2), (width // 2 - 6, height // 2 - 6), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cut = np.dstack([to_bytes(dust(picture, rng, 15)), oval])
    Image.fromarray(cut).save(folder / "school" / "1966 oval.webp", quality=82, exact=True)


def main() -> None:
    """Makes the album."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("album", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    (arguments.album / "school").mkdir(parents=True, exist_ok=True)
    faces = Faces(arguments.faces)
    black_and_white(faces, np.random.default_rng(arguments.seed), arguments.album)
    colour(faces, np.random.default_rng(arguments.seed + 1), arguments.album)


if __name__ == "__main__":
    main()
