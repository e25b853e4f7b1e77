"""The weights files that a configuration names: paths, names of the manifest, or what the manifest has for a key."""

from __future__ import annotations

from pathlib import Path

from gfprestore.errors import UsageError, printable
from gfprestore.manifest import MANIFEST
from gfprestore.weights import find_weights

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's VGG-19, which the manifest lacks."""

STANDARD = {
    "losses.lpips_alexnet": "alexnet",
    "losses.lpips_vgg16": "vgg16",
    "validation.lpips_vgg": "vgg16",
}
"""The manifest's name of what a key stands for where it names nothing."""

ARCFACES = {"losses.identity": "arcface-resnet18", "losses.identity_cosine": "w600k-mbf"}
"""The same for `losses.identity_weights`, by the loss that has the weight: the published training's, and the one whose
angles validation measures."""


def named_file(name: str, key: str) -> Path:
    """The file that a key of the configuration names; nothing is fetched.

    Args:
        name: A path, or a name of the manifest, which is looked for in the folders of `gfprestore-weights`.
        key: That key, for messages.

    Raises:
        UsageError: The manifest's file is not here.
        WeightsError: It is damaged.
    """
    known = next((entry for entry in MANIFEST if entry.name == name), None)
    if known is None or Path(name).is_file():
        return Path(name)
    found = find_weights(name)
    if found is None:
        raise UsageError(f"{key} is {name}, which is not here: `gfprestore-weights fetch {name}`.")
    return found


def wanted_file(name: str | None, key: str, asker: str, standard: str | None = None) -> Path:
    """The file behind a key, or the standard one where the key names none; nothing is fetched.

    Args:
        name: The key's value.
        key: Its name.
        asker: What asks for the file, such as `losses.lpips has a weight`.
        standard: The manifest's name of the standard one; that of `STANDARD` unless given.

    Raises:
        UsageError: It is not here; the message says how to come by it.
        WeightsError: It is damaged.
    """
    if name is not None:
        return named_file(name, key)
    standard = standard or STANDARD.get(key)
    found = None if standard is None else find_weights(standard)
    if found is None:
        source = f"`gfprestore-weights fetch {standard}`, or" if standard else f"download {VGG19_URL} and"
        raise UsageError(f"{printable(asker)} but {key} names no file: {source} --set {key}=FILE.")
    return found
