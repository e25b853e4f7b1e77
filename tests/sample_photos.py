"""Photos and metadata that several tests use."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from gfprestore.photo import Photo, PhotoMetadata, Pixels

LOSSLESS = (".png", ".tiff")


def colours(dtype: type = np.uint8, size: tuple[int, int] = (19, 31)) -> Pixels:
    """Every channel differs, so that swapped channels or axes show; the low bits of 16 are used."""
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x * 8, y * 13, (x + 2 * y) * 3], axis=-1)
    if dtype is np.uint16:
        return (pixels * 257 + x[..., None] * 7 + np.arange(3)).clip(0, 65535).astype(np.uint16)
    return pixels.astype(np.uint8)


def photo(dtype: type = np.uint8, *, is_gray: bool = False, has_alpha: bool = False, **metadata: object) -> Photo:
    pixels = colours(dtype)
    if is_gray:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    alpha = np.ascontiguousarray(colours(dtype)[:, :, 1]) if has_alpha else None
    return Photo(pixels, PhotoMetadata("PNG", **metadata), alpha, is_gray)  # type: ignore[arg-type]


def saved(path: Path, image: Image.Image, **settings: object) -> Path:
    image.save(path, **settings)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def profile(kind: str) -> bytes:
    """A profile: sRGB, or one with wide primaries and a gamma of 1.8 made by changing sRGB's numbers."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if kind == "wide":
        for entry in range(int.from_bytes(made[128:132], "big")):
            at = 132 + 12 * entry
            tag, offset = bytes(made[at : at + 4]), int.from_bytes(made[at + 4 : at + 8], "big")
            if tag == b"rXYZ":  # More red than sRGB's 0.436, 0.222, 0.014.
                made[offset + 8 : offset + 20] = b"".join(
                    round(v * 65536).to_bytes(4, "big") for v in (0.610, 0.311, 0.019)
                )
            if tag == b"gXYZ":
                made[offset + 8 : offset + 20] = b"".join(
                    round(v * 65536).to_bytes(4, "big") for v in (0.205, 0.626, 0.061)
                )
    return bytes(made)


def gray_profile(gamma: float) -> bytes:
    """A profile for gray with a gamma, of the ICC's version 2: the least that readers take."""
    return _least_profile(b"mntrGRAY", {b"kTRC": b"curv" + struct.pack(">4xIHxx", 1, round(gamma * 256))})


def scanner_profile(gamma: float) -> bytes:
    """A profile for RGB with sRGB's primaries and a gamma, whose one table leads from the device and none back."""
    primaries = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)  # [R*G*B 3]
    colours = np.rint(corners @ primaries * 32768)
    curve = np.rint(np.linspace(0, 1, 256) ** gamma * 65535)
    numbers = np.concatenate([[256, 2], curve, curve, curve, colours.ravel(), [0, 65535] * 3])
    head = b"mft2" + bytes(4) + bytes([3, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    return _least_profile(b"scnrRGB ", {b"A2B0": head + numbers.astype(">u2").tobytes()})


def _least_profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = b"".join(struct.pack(">i", round(value * 65536)) for value in (0.9642, 1, 0.8249))  # D50
    description = b"desc" + struct.pack(">4xI", 2) + b"x" + bytes(79)
    usual = {b"desc": description, b"cprt": b"text\0\0\0\0x\0\0\0", b"wtpt": b"XYZ \0\0\0\0" + white}
    tags = usual | tags
    table, values = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(values), len(value))
        values += value
    head = b"\x02\x10\0\0" + kind + b"XYZ " + bytes(12) + b"acsp" + bytes(28) + white
    body = bytes(4) + head + bytes(128 - 8 - len(head)) + table + values
    return struct.pack(">I", 4 + len(body)) + body


def shown(path: Path) -> np.ndarray:
    """What a viewer that heeds profiles shows of a file: sRGB, (H, W, 3)."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if profile is None:
            return np.asarray(image.convert("RGB"))
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return np.asarray(converted)


def full_metadata() -> PhotoMetadata:
    block = Image.Exif()
    block[0x010E] = "Aunt Mary"
    block.get_ifd(0x8769)[0x9003] = "1962:07:01 12:00:00"
    block.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02" * 20
    block.get_ifd(0x8825)[1] = "N"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><a/></rdf:RDF></x:xmpmeta>'
    return PhotoMetadata(
        "JPEG",
        exif=block.tobytes()[6:],
        icc_profile=profile("wide"),
        xmp=xmp,
        iptc=b"\x1c\x02\x50\x00\x03Bob",
        dpi=(300.0, 150.0),
        comment=b"from the attic",
    )
