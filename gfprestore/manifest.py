"""Every weights file that gfprestore knows: where it comes from, its size, its digest and its licence.

The authors publish no digests. Those here agree between several independent copies of each file.
"""

from __future__ import annotations

from pathlib import Path

from gfprestore.errors import WeightsError, printable
from gfprestore.manifest_metrics import METRIC_FILES
from gfprestore.weightsfile import Kind as Kind
from gfprestore.weightsfile import WeightsFile as WeightsFile

_GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/download/"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/"
_REALESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
_CODEFORMER = "https://github.com/sczhou/CodeFormer/releases/download/"
_DDCOLOR = "https://huggingface.co/piddnad/DDColor-models/resolve/e9e7b527709c8aeb2f5e1bf701e72fd468a13baa/"

_GFPGAN_LICENCE = "Apache-2.0 with NVIDIA StyleGAN2 (non-commercial) and CC BY-NC-SA parts; trained on FFHQ"
_SHIPPED_LICENCE = "non-commercial: trained on faces from a generator trained on FFHQ"

SUFFIXES = (".pth", ".pt", ".safetensors")
"""Of files that may hold weights."""

MANIFEST = (
    WeightsFile(
        name="1.4",
        file="GFPGANv1.4.pth",
        kind="face",
        bytes=348632874,
        sha256="e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        licence=_GFPGAN_LICENCE,
        note="GFP-GAN v1.4: more detail and better identity than 1.3",
        url=_GFPGAN + "v1.3.0/GFPGANv1.4.pth",
    ),
    WeightsFile(
        name="1.3",
        file="GFPGANv1.3.pth",
        kind="face",
        bytes=348632874,
        sha256="c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
        licence=_GFPGAN_LICENCE,
        note="GFP-GAN v1.3: natural, for very low quality as well",
        url=_GFPGAN + "v1.3.0/GFPGANv1.3.pth",
    ),
    WeightsFile(
        name="1.2",
        file="GFPGANv1.2.pth",
        kind="face",
        bytes=348632874,
        sha256="29e25ee90c170f4231163f4c83df6b59c968b73f3ce00cb884015ae005db083c",
        licence=_GFPGAN_LICENCE,
        note="GFP-GAN v1.2: sharp, with a touch of make-up",
        url=_GFPGAN + "v1.3.0/GFPGANv1.2.pth",
    ),
    WeightsFile(
        name="1",
        file="GFPGANv1.pth",
        kind="face",
        bytes=615378983,
        sha256="6db3a33dd00dd427b8a70a7e3c6244a5bcccb818736f4861ce1d609024a991de",
        licence=_GFPGAN_LICENCE,
        note="the paper's model; colours faces too",
        url=_GFPGAN + "v0.1.0/GFPGANv1.pth",
    ),
    WeightsFile(
        name="compact",
        file="gfprestore_compact_fp16.safetensors",
        kind="face",
        bytes=15520944,
        sha256="4c37cb20e334098d65f7f383e5124c0fc20ae226ddb9a4f4254f21e068fc1e64",
        licence=_SHIPPED_LICENCE,
        note="small GFP-GAN of this project; ships with it",
    ),
    WeightsFile(
        name="resnet50",
        file="detection_Resnet50_Final.pth",
        kind="detector",
        bytes=109497761,
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf31840b0a5a16d",
        licence="MIT",
        note="RetinaFace, ResNet-50",
        url=_FACEXLIB + "v0.1.0/detection_Resnet50_Final.pth",
    ),
    WeightsFile(
        name="mobilenet0.25",
        file="detection_mobilenet0.25_Final.pth",
        kind="detector",
        bytes=1789735,
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        licence="MIT",
        note="RetinaFace, MobileNet-0.25",
        url=_FACEXLIB + "v0.1.0/detection_mobilenet0.25_Final.pth",
    ),
    WeightsFile(
        name="detector-compact",
        file="detector_compact_fp16.safetensors",
        kind="detector",
        bytes=920608,
        sha256="c5e316832a182177d1d49b72f2cf053b1d26e16edf83ab4c6e2f378d7889ef54",
        licence=_SHIPPED_LICENCE,
        note="small RetinaFace of this project; ships with it",
    ),
    WeightsFile(
        name="parsenet",
        file="parsing_parsenet.pth",
        kind="parsing",
        bytes=85331193,
        sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        licence="MIT",
        note="ParseNet face parsing",
        url=_FACEXLIB + "v0.2.2/parsing_parsenet.pth",
    ),
    WeightsFile(
        name="bisenet",
        file="parsing_bisenet.pth",
        kind="parsing",
        bytes=53289463,
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        licence="MIT",
        note="BiSeNet face parsing, 19 classes",
        url=_FACEXLIB + "v0.2.0/parsing_bisenet.pth",
    ),
    WeightsFile(
        name="realesrgan-x4plus",
        file="RealESRGAN_x4plus.pth",
        kind="background",
        bytes=67040989,
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        licence="BSD-3-Clause",
        note="Real-ESRGAN x4",
        url=_REALESRGAN + "v0.1.0/RealESRGAN_x4plus.pth",
    ),
    WeightsFile(
        name="realesrgan-x2plus",
        file="RealESRGAN_x2plus.pth",
        kind="background",
        bytes=67061725,
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        licence="BSD-3-Clause",
        note="Real-ESRGAN x2",
        url=_REALESRGAN + "v0.2.1/RealESRGAN_x2plus.pth",
    ),
    WeightsFile(
        name="realesr-general-x4v3",
        file="realesr-general-x4v3.pth",
        kind="background",
        bytes=4885111,
        sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        licence="BSD-3-Clause",
        note="small and quick Real-ESRGAN x4",
        url=_REALESRGAN + "v0.2.5.0/realesr-general-x4v3.pth",
    ),
    WeightsFile(
        name="realesr-general-wdn-x4v3",
        file="realesr-general-wdn-x4v3.pth",
        kind="background",
        bytes=4885111,
        sha256="1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        licence="BSD-3-Clause",
        note="the same, removing more noise",
        url=_REALESRGAN + "v0.2.5.0/realesr-general-wdn-x4v3.pth",
    ),
    WeightsFile(
        name="compact-colour",
        file="gfprestore_colour_compact_fp16.safetensors",
        kind="colour",
        bytes=15523336,
        sha256="a16185fd0fff8f8871c71ae396a56602143810fc74d3abf56275611e82be7ab1",
        licence=_SHIPPED_LICENCE,
        note="small GFP-GAN of this project that colours gray faces; ships with it",
    ),
    WeightsFile(
        name="ddcolor-tiny",
        file="ddcolor_paper_tiny.pth",
        kind="colour",
        bytes=220393145,
        sha256="81dd643904f4664c3718513e3320ae3db0c567f0d3e18398606659adee7bfc17",
        licence="Apache-2.0",
        note="DDColor, small encoder",
        url=_DDCOLOR + "ddcolor_paper_tiny.pth",
    ),
    WeightsFile(
        name="ddcolor",
        file="ddcolor_modelscope.pth",
        kind="colour",
        bytes=911950059,
        sha256="17c460d7e55b32a598370621d77173be59e03c24b0823f06821db23a50c263ce",
        licence="Apache-2.0",
        note="DDColor, large encoder",
        url=_DDCOLOR + "ddcolor_modelscope.pth",
    ),
    WeightsFile(
        name="stylegan2-ffhq",
        file="StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth",
        kind="prior",
        bytes=204535545,
        sha256="05f5d33d79b32a3355cae3ede30e7ee06a90e56c60b1c2efe4ddd0d0e5a2959f",
        licence=_GFPGAN_LICENCE,
        note="StyleGAN2 generator that GFP-GAN's training starts from",
        url=_GFPGAN + "v0.1.0/StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth",
    ),
    WeightsFile(
        name="component-landmarks",
        file="FFHQ_eye_mouth_landmarks_512.pth",
        kind="landmarks",
        bytes=37260585,
        sha256="80c0c1a71206d42b3d39c1d4c9b0ddd4066743f478e36e3de19ced0db4434c02",
        licence=_GFPGAN_LICENCE,
        note="eye and mouth boxes of FFHQ for the facial component loss",
        url=_GFPGAN + "v0.1.0/FFHQ_eye_mouth_landmarks_512.pth",
    ),
    WeightsFile(
        name="arcface-resnet18",
        file="arcface_resnet18.pth",
        kind="recogniser",
        bytes=102585335,
        sha256="69554b3184575bdda7ecf7f40caf2b0c5ecbd0617b676d2209d8bf0e7e3d8042",
        licence=_GFPGAN_LICENCE,
        note="face recogniser of GFP-GAN's identity loss",
        url=_GFPGAN + "v0.1.0/arcface_resnet18.pth",
    ),
    WeightsFile(
        name="restoreformer",
        file="RestoreFormer.pth",
        kind="peer",
        bytes=290785322,
        sha256="07404d446d62ca3d5ed38b1de09a947a1e77d46dbccec961a74d713a8f24ace0",
        licence="Apache-2.0",
        note="RestoreFormer, for comparisons",
        url=_GFPGAN + "v1.3.4/RestoreFormer.pth",
    ),
    WeightsFile(
        name="codeformer",
        file="codeformer.pth",
        kind="peer",
        bytes=376637898,
        sha256="1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
        licence="S-Lab 1.0, non-commercial",
        note="CodeFormer, for comparisons",
        url=_CODEFORMER + "v0.1.0/codeformer.pth",
    ),
    *METRIC_FILES,
)


def find_entry(name: str) -> WeightsFile | None:
    """The entry called so, else the one whose file is, with or without its suffix; None where there is none.

    Case does not matter.
    """
    wanted = name.lower()
    for entry in MANIFEST:
        if wanted == entry.name:
            return entry
    for entry in MANIFEST:
        if wanted in (entry.file.lower(), entry.file.lower().rpartition(".")[0]):
            return entry
    return None


def known_weights(name: str) -> WeightsFile:
    """Finds an entry by what a user types, as `find_entry` does.

    Raises:
        WeightsError: No entry is called that.
    """
    entry = find_entry(name)
    if entry is None:
        names = ", ".join(entry.name for entry in MANIFEST)
        raise WeightsError(f"No weights are called {name!r}; known are {names}.")
    return entry


def check_choice(name: str, kind: Kind) -> None:
    """Refuses what is no choice of weights, before anything is fetched for other choices.

    Args:
        name: What the user named: `auto`, a name of the manifest, or the path of a file.
        kind: What they are for.

    Raises:
        WeightsError: It is none of these.
    """
    path = Path(name)
    if name == "auto" or (path.suffix in SUFFIXES and path.is_file()):
        return
    entry = find_entry(name)
    if entry is not None and entry.kind == kind:
        return
    option = {"face": "--model", "detector": "--detector"}[kind]
    if entry is None and (path.suffix in SUFFIXES or path.name != name):
        raise WeightsError(f"There is no weights file {printable(name)}; check {option}.")
    fitting = ", ".join(entry.name for entry in MANIFEST if entry.kind == kind)
    shown = printable(name) if entry is None else entry.name
    raise WeightsError(f"{shown} is no {kind} model; {option} takes auto, {fitting}, or the path of a weights file.")
