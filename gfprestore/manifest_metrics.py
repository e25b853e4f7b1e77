"""The weights files that `gfprestore-eval` measures with; part of the one manifest."""

from __future__ import annotations

from gfprestore.weightsfile import WeightsFile

METRIC_FILES = (
    WeightsFile(
        name="alexnet",
        file="alexnet-owt-7be5be79.pth",
        kind="metric",
        bytes=244408911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        licence="BSD-3-Clause; trained on ImageNet",
        note="torchvision's AlexNet, for LPIPS",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    WeightsFile(
        name="vgg16",
        file="vgg16-397923af.pth",
        kind="metric",
        bytes=553433881,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        licence="BSD-3-Clause (torchvision), CC BY 4.0 (values, VGG of Oxford); trained on ImageNet",
        note="torchvision's VGG-16, for LPIPS",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    WeightsFile(
        name="inception",
        file="pt_inception-2015-12-05-6726825d.pth",
        kind="metric",
        bytes=95628359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        licence="Apache-2.0",
        note="Inception-v3 of 2015, for FID",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    WeightsFile(
        name="niqe",
        file="niqe_pris_params.npz",
        kind="metric",
        bytes=11850,
        sha256="2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
        licence="free use with citation of the authors (LIVE, University of Texas)",
        note="model of pristine images, for NIQE",
        url="https://raw.githubusercontent.com/XPixelGroup/BasicSR/8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a"
        "/basicsr/metrics/niqe_pris_params.npz",
    ),
    WeightsFile(
        name="w600k-mbf",
        file="w600k_mbf.onnx",
        kind="recogniser",
        bytes=13616099,
        sha256="9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        licence="InsightFace models: non-commercial research",
        note="ArcFace MobileFaceNet, for Deg",
        url="https://github.com/yakhyo/uniface/releases/download/weights/w600k_mbf.onnx",
    ),
)
"""Sizes and digests agree between many independent records of each file; that of `niqe` is of the file at the named
commit."""
