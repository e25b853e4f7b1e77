"""Small sound photos of every kind that is read, and a thousand ways in which they are broken."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st
from PIL import Image
from sample_photos import chunk

from gfprestore.errors import PhotoError
from gfprestore.photo import Photo
from gfprestore.photofile import read_photo

FLIPS_PER_KIND = 30
CUTS_PER_KIND = 12


def pattern(mode: str, size: tuple[int, int] = (23, 17)) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    colours = np.stack([x * 9, y * 13, x * y, 255 - x], axis=-1).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray((x * 2000 + y).astype(np.uint16))
    if mode == "F":
        return Image.fromarray((x / size[0]).astype(np.float32))
    return Image.fromarray(colours).convert(mode)


def exif_block(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Camera"
    block.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:59"
    return block.tobytes()


def saved(image: Image.Image, format: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def deep(extension: str, channels: int) -> bytes:
    values = np.random.default_rng(channels).integers(0, 65536, (17, 23, channels), dtype=np.uint16)
    return cv2.imencode(extension, values)[1].tobytes()


def ycck(cmyk: bytes) -> bytes:
    """A CMYK JPEG that says its inks are stored as YCCK: Adobe's marker names the transform in its last byte."""
    data = bytearray(cmyk)
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def kinds() -> dict[str, bytes]:
    """One small sound file of every kind that is read."""
    frames = [pattern("P"), pattern("P").rotate(180), pattern("P").rotate(90)]
    palette = pattern("P")
    palette.info["transparency"] = bytes(range(256))
    found = {
        "jpeg": saved(pattern("RGB"), "JPEG", exif=exif_block(), comment=b"x" * 300, dpi=(300, 300)),
        "jpeg-gray": saved(pattern("L"), "JPEG"),
        "jpeg-cmyk": saved(pattern("CMYK"), "JPEG"),
        "jpeg-ycck": ycck(saved(pattern("CMYK"), "JPEG")),
        "jpeg-progressive": saved(pattern("RGB"), "JPEG", progressive=True),
        "png": saved(pattern("RGB"), "PNG", exif=exif_block()),
        "png-palette": saved(palette, "PNG", transparency=bytes(range(256))),
        "png-1": saved(pattern("1"), "PNG"),
        "png-la": saved(pattern("LA"), "PNG"),
        "png-16": deep(".png", 3),
        "png-16-alpha": deep(".png", 4),
        "png-16-gray": saved(pattern("I;16"), "PNG"),
        "apng": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "tiff": saved(pattern("RGB"), "TIFF", exif=exif_block()),
        "tiff-lzw": saved(pattern("RGBA"), "TIFF", compression="tiff_lzw"),
        "tiff-g4": saved(pattern("1"), "TIFF", compression="group4"),
        "tiff-jpeg": saved(pattern("RGB"), "TIFF", compression="jpeg"),
        "tiff-cmyk": saved(pattern("CMYK"), "TIFF"),
        "tiff-lab": saved(Image.frombytes("LAB", (23, 17), bytes(range(256)) * 4 + bytes(149)), "TIFF"),
        "tiff-16": deep(".tiff", 3),
        "tiff-16-gray": saved(pattern("I;16"), "TIFF"),
        "tiff-float": saved(pattern("F"), "TIFF"),
        "tiff-pages": saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "webp": saved(pattern("RGB"), "WEBP", exif=exif_block()),
        "webp-alpha": saved(pattern("RGBA"), "WEBP", lossless=True),
        "webp-frames": saved(frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:]),
        "bmp": saved(pattern("RGB"), "BMP"),
        "bmp-palette": saved(pattern("P"), "BMP"),
        "gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    }
    if "AVIF" in Image.SAVE:
        found["avif"] = saved(pattern("RGB"), "AVIF", speed=10)
    return found


KINDS = kinds()


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def lying_png(width: int, height: int) -> bytes:
    return png_header(width, height) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def lying_jpeg(width: int, height: int) -> bytes:
    data = bytearray(KINDS["jpeg-gray"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def lying_tiff(tag: int, number: int) -> bytes:
    data = bytearray(KINDS["tiff"])
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            struct.pack_into("<HII", data, place + 2, 4, 1, number)
    return bytes(data)


def jpeg_with_exif(tiff: bytes) -> bytes:
    return saved(pattern("RGB"), "JPEG", exif=b"Exif\x00\x00" + tiff)


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


BOMB = zlib.compress(bytes(10**7))


def crafted() -> dict[str, bytes]:
    """Files that lie in one chosen place."""
    huge = 2**32 - 1
    return {
        "empty": b"",
        "zeros": bytes(5000),
        "noise": random.Random(0).randbytes(5000),
        "text": b"This is not a photo.\n" * 50,
        "one byte": b"\xff",
        "only magic jpeg": b"\xff\xd8\xff",
        "only magic png": b"\x89PNG\r\n\x1a\n",
        "only magic tiff": b"II*\x00",
        "only magic bigtiff": b"II+\x00\x08\x00\x00\x00",
        "only magic gif": b"GIF89a",
        "only magic bmp": b"BM",
        "only magic webp": b"RIFF\x00\x00\x00\x00WEBP",
        "only magic heic": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "only magic avif": b"\x00\x00\x00\x18ftypavif" + bytes(100),
        "only magic jxl": b"\xff\x0a" + bytes(100),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "1x1": saved(pattern("RGB", (1, 1)), "JPEG"),
        "30000x1": saved(pattern("L", (30000, 1)), "PNG"),
        "1x30000": saved(pattern("RGB", (1, 30000)), "TIFF"),
        "0x0 png": lying_png(0, 0),
        "lying png": lying_png(20000, 20000),
        "bomb png": lying_png(2**31 - 1, 2**31 - 1),
        "row too many png": png_header(9, 9) + chunk(b"IDAT", zlib.compress(bytes(28 * 8))) + chunk(b"IEND", b""),
        "lying jpeg": lying_jpeg(65500, 65500),
        "0 rows jpeg": lying_jpeg(23, 0),
        "long comment": saved(pattern("RGB"), "JPEG", comment=b"c" * 65533),
        "many comments": b"\xff\xd8" + (b"\xff\xfe\xff\xff" + b"c" * 65533) * 16 + KINDS["jpeg"][2:],
        "zip bomb in a profile": png_header(9, 9) + chunk(b"iCCP", b"p\x00\x00" + BOMB),
        "zip bomb in a text": png_header(9, 9) + chunk(b"zTXt", b"Comment\x00\x00" + BOMB),
        "damaged profile": saved(pattern("RGB"), "JPEG", icc_profile=b"profile" * 100),
        "exif cycle": jpeg_with_exif(directory((0x0112, 3, 1, 6), (0x8769, 4, 1, 8), following=8)),
        "exif huge count": jpeg_with_exif(directory((0x010F, 2, huge, 8), (0x9286, 7, huge, huge))),
        "exif orientation 0": jpeg_with_exif(directory((0x0112, 3, 1, 0))),
        "exif orientation 9": jpeg_with_exif(directory((0x0112, 3, 1, 9))),
        "exif orientation text": jpeg_with_exif(directory((0x0112, 2, 4, 0x31323334))),
        "exif outside": jpeg_with_exif(b"II*\x00" + struct.pack("<I", huge)),
        "exif short": jpeg_with_exif(b"II"),
        "exif thumbnail lies": jpeg_with_exif(directory((0x0201, 4, 1, 0), (0x0202, 4, 1, huge), following=8)),
        "tiff cycle": KINDS["tiff-pages"][:4] + KINDS["tiff-pages"][4:].replace(b"\x00" * 4, b"\x08\x00\x00\x00", 1),
        **{
            f"tiff {tag}={n}": lying_tiff(tag, n)
            for tag in (256, 257, 258, 259, 262, 277, 278, 279)
            for n in (0, 7, huge)
        },
        **{f"tiff offset={n}": lying_tiff(273, n) for n in (0, 8, huge)},
    }


CRAFTED = crafted()


def broken() -> Iterator[tuple[str, bytes]]:
    yield from CRAFTED.items()
    for kind, sound in KINDS.items():
        chance = random.Random(kind)
        for cut in sorted(chance.sample(range(1, len(sound)), CUTS_PER_KIND)):
            yield f"{kind} cut at {cut}", sound[:cut]
        for number in range(FLIPS_PER_KIND):
            flipped = bytearray(sound)
            # Half of them in the first bytes, where the structure is.
            reach = len(sound) if number % 2 else min(len(sound), 200)
            for _ in range(chance.choice((1, 2, 8))):
                flipped[chance.randrange(reach)] = chance.choice((0, 255, chance.randrange(256)))
            yield f"{kind} flipped {number}", bytes(flipped)


INTERESTING = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x01", b"\x80")
"""Numbers at the edges of what length and size fields hold."""


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound or crafted file with a few changes: bytes overwritten, parts cut out, doubled or taken from another."""
    sound = [*KINDS.values(), *(data for data in CRAFTED.values() if 0 < len(data) < 100_000)]
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.sampled_from((1, 1, 2, 5)))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 2, 4, 16, 100, 1000)))
        change = draw(st.sampled_from(("byte", "number", "random", "cut", "double", "end", "other")))
        if change == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif change == "number":
            number = draw(st.sampled_from(INTERESTING))
            data[at : at + len(number)] = number
        elif change == "random":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif change == "cut":
            del data[at : at + length]
        elif change == "double":
            data[at:at] = data[at : at + length]
        elif change == "end":
            del data[max(1, at) :]
        else:
            other = draw(st.sampled_from(sound))
            start = draw(st.integers(0, len(other)))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


def check_sound(photo: Photo) -> None:
    pixels = photo.pixels
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert min(pixels.shape) > 0
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.flags.c_contiguous
    assert photo.alpha is None or (photo.alpha.shape == pixels.shape[:2] and photo.alpha.dtype == pixels.dtype)
    assert not photo.is_gray or (pixels == pixels[:, :, :1]).all()
    assert all("\n" not in warning for warning in photo.warnings)


def read_or_refuse(path: Path) -> str:
    try:
        check_sound(read_photo(path))
    except PhotoError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert message.endswith(".")
        assert message.isprintable()
        return "refused"
    return "read"
