"""Edits XMP packets as the text they are (XMP specification, part 1), so that whatever else they hold stays as it was.

A packet that is not UTF-8 or whose elements do not close is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.sax.saxutils import quoteattr

EDITED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
"""IPTC's term for a photo from the real world that an algorithm has improved."""

_TIFF, _IPTC = "http://ns.adobe.com/tiff/1.0/", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_TAG_NAMES = ((_TIFF, "Software"), (_IPTC, "DigitalSourceType"))
"""Namespace and name of what the tag sets."""

_APART = (
    (
        (("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),),
        "A part of the XMP data, which a JPEG stores apart for its length, was left out.",
    ),
    (
        (("http://ns.adobe.com/hdr-gain-map/1.0/", r"\w+"),),
        "The gain map, by which some screens show the photo brighter, was left out.",
    ),
    (
        (("http://ns.google.com/photos/1.0/camera/", r"(?:MotionPhoto|MicroVideo)\w*"),),
        "The short video that the photo was taken from was left out.",
    ),
    ((("http://ns.google.com/photos/1.0/container/", "Directory"),), None),
)
"""Namespaces and names of what a packet says of parts of the file beside the photo, and what to tell of their loss."""

_ORIENTATION = re.compile(rb"(\btiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)([0-9])")
"""An attribute or an element, and its number."""

_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()

_NAME = r"([\w.-]++:[\w.-]++)"
_ELEMENT = re.compile(rf"<(/?){_NAME}([^<>]*+)>")
_ATTRIBUTE = re.compile(rf"\s{_NAME}\s*+=\s*+(?:\"[^\"]*\"|'[^']*')")


def orientation(packet: bytes) -> int:
    """The orientation that a packet names, as an attribute or as an element; 1 where it names none."""
    found = _ORIENTATION.search(packet)
    return int(found[2]) if found and found[2] in b"12345678" else 1


def upright(packet: bytes) -> bytes:
    """The packet with orientation 1, if it names any."""
    return _ORIENTATION.sub(rb"\g<1>1", packet)


def of_photo_alone(packet: bytes) -> tuple[bytes, list[str]]:
    """The packet without mention of what the file holds beside the photo, such as a video; one sentence for each."""
    try:
        text = packet.decode("utf-8")
    except UnicodeDecodeError:
        return packet, []
    notes = []
    for names, note in _APART:
        shorter = _without(text, names)
        if note is not None and shorter != text:
            notes.append(note)
        text = shorter
    return text.encode("utf-8"), notes


def tagged(packet: bytes | None, software: str) -> bytes:
    """The packet saying that the photo was enhanced, and by what."""
    packet = packet or _EMPTY
    try:
        text = packet.decode("utf-8")
    except UnicodeDecodeError:
        return packet
    end = text.rfind("</rdf:RDF>")
    if end < 0:
        return packet
    before, after = _without(text[:end], _TAG_NAMES), text[end:]
    about = re.search(r"rdf:about\s*=\s*(\"[^\"]*\"|'[^']*')", before)
    description = (
        f"<rdf:Description rdf:about={about[1] if about else quoteattr('')}"
        f' xmlns:tiff="{_TIFF}" xmlns:Iptc4xmpExt="{_IPTC}"'
        f" tiff:Software={quoteattr(software)} Iptc4xmpExt:DigitalSourceType={quoteattr(EDITED)}/>"
    )
    return (before + description + after).encode("utf-8")


def without_padding(packet: bytes) -> bytes:
    """The packet without the blanks before its end that leave room for editing in place."""
    end = packet.rfind(b"<?xpacket end")
    return packet if end < 0 else packet[:end].rstrip() + packet[end:]


def _without(text: str, names: tuple[tuple[str, str], ...]) -> str:
    """The text without elements and attributes of these namespaces and names, which are regular expressions.

    Each character is looked at a fixed number of times, however hostile the text.
    """
    bound: dict[str, set[str]] = {}
    for space, name in names:
        for prefix in re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{re.escape(space)}[\"']", text):
            bound.setdefault(prefix, set()).add(name)

    def is_unwanted(name: str) -> bool:
        prefix, _, local = name.partition(":")
        return any(re.fullmatch(unwanted, local) for unwanted in bound.get(prefix, ()))

    if not bound:
        return text
    text = _without_elements(text, is_unwanted)
    return _ATTRIBUTE.sub(lambda found: "" if is_unwanted(found[1]) else found[0], text)


def _without_elements(text: str, is_unwanted: Callable[[str], bool]) -> str:
    kept, at, inside = [], 0, None
    for element in _ELEMENT.finditer(text):
        is_end, name, rest = element.groups()
        if inside is None and not is_end and is_unwanted(name):
            kept.append(text[at : element.start()])
            at = element.end()
            inside = None if rest.endswith("/") else name
        elif inside == name and is_end:
            at, inside = element.end(), None
    return text if inside is not None else "".join([*kept, text[at:]])
