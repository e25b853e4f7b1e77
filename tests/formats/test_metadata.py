"""What stands beside the pixels: tagged as enhanced without losing anything, whatever it was before."""

from __future__ import annotations

import io
import struct
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfprestore.formats.metadata import read_metadata, tag_as_restored
from gfprestore.formats.photoshop import SEGMENT_PREFIX, iptc_resource
from gfprestore.formats.xmp import EDITED
from gfprestore.photo import PhotoMetadata

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
SOFTWARE = "{http://ns.adobe.com/tiff/1.0/}Software"
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
TITLE = "{http://purl.org/dc/elements/1.1/}title"

PACKET = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {attribute}>{element}
 <dc:title>Tante Käthe</dc:title></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""

PACKETS = [
    PACKET.format(attribute="", element=""),
    PACKET.format(attribute='tiff:Software="old 1" Iptc4xmpExt:DigitalSourceType="x"', element=""),
    PACKET.format(
        attribute="tiff:Software='old'", element="<Iptc4xmpExt:DigitalSourceType>x</Iptc4xmpExt:DigitalSourceType>"
    ),
    PACKET.format(attribute="", element="<Iptc4xmpExt:DigitalSourceType rdf:resource='x'/>"),
    PACKET.format(
        attribute="", element="<Iptc4xmpExt:DigitalSourceType><rdf:a>x</rdf:a></Iptc4xmpExt:DigitalSourceType>"
    ),
    PACKET.format(
        attribute='xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" ext:DigitalSourceType="x"',
        element="<ext:DigitalSourceType>x</ext:DigitalSourceType>",
    ),
]


def values(packet: bytes, name: str) -> list[str | None]:
    """Every value of a property, whether it is written as an attribute or as an element."""
    root = ElementTree.fromstring(packet)
    attributes = [d.get(name) for d in root.iter(RDF + "Description") if d.get(name) is not None]
    return attributes + [element.text for element in root.iter(name)]


@pytest.mark.parametrize("packet", [None, *PACKETS])
def test_the_tag_is_set_once_and_the_rest_stays(packet: str | None) -> None:
    source = PhotoMetadata("JPEG", xmp=packet.encode() if packet else None, comment=b"c", dpi=(1.0, 2.0))
    tagged = tag_as_restored(source, 'model "<1>" & co', "2.0")
    for _ in range(2):
        assert tagged.xmp is not None
        assert values(tagged.xmp, SOFTWARE) == ['gfprestore 2.0 (model "<1>" & co)']
        assert values(tagged.xmp, SOURCE_TYPE) == [EDITED]
        if packet:
            assert values(tagged.xmp, TITLE) == ["Tante Käthe"]
            assert b'"x"' not in tagged.xmp and b">x<" not in tagged.xmp
            abouts = {d.get(RDF + "about") for d in ElementTree.fromstring(tagged.xmp).iter(RDF + "Description")}
            assert abouts == {"uuid:1"}, "a packet speaks of one photo"
        found = Image.Exif()
        found.load(tagged.exif or b"")
        assert found[0x0131] == 'gfprestore 2.0 (model "<1>" & co)'
        assert (tagged.comment, tagged.dpi) == (b"c", (1.0, 2.0))
        tagged = tag_as_restored(tagged, 'model "<1>" & co', "2.0")
    assert source.exif is None


def test_an_element_that_does_not_close_is_left_alone() -> None:
    packet = PACKET.format(attribute="", element="<tiff:Software>old").encode()
    tagged = tag_as_restored(PhotoMetadata("JPEG", xmp=packet), "m", "1").xmp or b""
    assert b"<tiff:Software>old" in tagged and b"Tante" in tagged


def test_hostile_packets_take_no_time() -> None:
    opened = PACKET.format(attribute="", element="<tiff:Software>" * 300_000).encode()
    blanks = PACKET.format(attribute="", element=" " * 3_000_000).encode()
    long = PACKET.format(attribute="", element="<tiff:" + "a" * 3_000_000).encode()
    bound = "".join(f' xmlns:a{number}="http://ns.adobe.com/tiff/1.0/"' for number in range(30_000))
    many = PACKET.format(attribute=bound, element="<tiff:a/>" * 30_000).encode()
    for packet in (opened, blanks, long, many, opened.replace(b"</rdf:Description>", b"")):
        start = time.perf_counter()
        tag_as_restored(PhotoMetadata("JPEG", xmp=packet), "m", "1")
        assert time.perf_counter() - start < 20


@pytest.mark.parametrize("packet", [b"no xml", "</rdf:RDF>".encode("utf-16"), b"\xff\xfe</rdf:RDF>"])
def test_packets_that_are_not_understood_are_kept(packet: bytes) -> None:
    assert tag_as_restored(PhotoMetadata("JPEG", xmp=packet), "m", "1").xmp == packet


def test_a_damaged_exif_block_is_kept() -> None:
    assert tag_as_restored(PhotoMetadata("JPEG", exif=b"damaged"), "m", "1").exif == b"damaged"


def test_the_tag_uses_iptcs_own_term() -> None:
    assert EDITED == "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"


def opened(**settings: object) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG", **settings)
    image = Image.open(buffer)
    image.load()
    return image


@given(st.binary(min_size=1, max_size=60), st.binary(max_size=9), st.integers(0, 4))
def test_iptc_is_found_among_other_resources(record: bytes, name: bytes, before: int) -> None:
    pascal = bytes([len(name)]) + name + bytes((len(name) + 1) % 2)
    other = b"8BIM" + struct.pack(">H", 0x0425) + pascal + struct.pack(">I", 3) + b"abc\0"
    segment = SEGMENT_PREFIX + other * before + iptc_resource(record) + other
    extra = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    assert read_metadata(opened(extra=extra))[0].iptc == record


@pytest.mark.parametrize("dpi", [(0, 0), (10**6, 10**6), (float("nan"), 1.0), (1.0,), "300", None])
def test_absurd_resolutions_are_dropped(dpi: object) -> None:
    image = opened()
    image.info["dpi"] = dpi
    assert read_metadata(image)[0].dpi is None


@pytest.mark.parametrize(
    "packet",
    [
        b'<rdf:Description tiff:Orientation="%d" other:Orientation="6"/>',
        b"<rdf:Description tiff:Orientation = '%d'/>",
        b"<tiff:Orientation>%d</tiff:Orientation>",
        b"<tiff:Orientation> %d </tiff:Orientation>",
    ],
)
def test_an_orientation_in_xmp_is_used_and_reset(packet: bytes) -> None:
    metadata, turn, _ = read_metadata(opened(xmp=packet % 6))
    assert (metadata.xmp, turn) == (packet % 1, 6)
    for named in (1, 3):  # What the EXIF block says counts.
        block = Image.Exif()
        block[0x0112] = named
        metadata, turn, _ = read_metadata(opened(xmp=packet % 6, exif=block))
        assert (metadata.xmp, turn) == (packet % 1, named)
    for absurd in (0, 9):
        assert read_metadata(opened(xmp=packet % absurd))[1] == 1


@pytest.mark.parametrize(
    ("space", "names", "told"),
    [
        ("http://ns.adobe.com/xmp/note/", ["HasExtendedXMP"], "XMP"),
        ("http://ns.adobe.com/hdr-gain-map/1.0/", ["Version", "GainMapMax"], "gain map"),
        ("http://ns.google.com/photos/1.0/camera/", ["MotionPhoto", "MicroVideoOffset"], "video"),
        ("http://ns.google.com/photos/1.0/container/", ["Directory"], None),
    ],
)
def test_the_packet_does_not_speak_of_parts_that_are_gone(space: str, names: list[str], told: str | None) -> None:
    attributes = "".join(f' g:{name}="1"' for name in names)
    elements = "".join(f"<g:{name}><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></g:{name}>" for name in names)
    plain = PACKET.format(attribute=f'xmlns:g="{space}" xmlns:h="http://h/"', element="")
    for attribute, element in ((attributes, ""), ("", elements), (attributes, elements)):
        kept = f'xmlns:g="{space}" xmlns:h="http://h/"', "<h:Version>1</h:Version>"
        packet = PACKET.format(attribute=kept[0] + attribute, element=kept[1] + element)
        metadata, _, warnings = read_metadata(opened(xmp=packet.encode()))
        assert metadata.xmp == PACKET.format(attribute=kept[0], element=kept[1]).encode()
        assert [told in warning for warning in warnings if told] == [True] * (told is not None)
    assert read_metadata(opened(xmp=plain.encode()))[2] == []


def test_damage_is_told() -> None:
    metadata, turn, warnings = read_metadata(opened(exif=b"Exif\0\0damaged", icc_profile=b"damaged"))
    assert (metadata.exif, metadata.icc_profile, turn) == (None, None, 1)
    assert sorted(sentence.split(" ")[1] for sentence in warnings) == ["EXIF", "colour"]
