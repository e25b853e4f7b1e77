"""Parsing: facexlib's own labels, whichever network, size and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facexlib.parsing.bisenet import BiSeNet
from facexlib.parsing.parsenet import ParseNet
from real_faces import cut_face
from torch.nn import functional

from gfprestore.blending.masks import FaceLabel
from gfprestore.errors import WeightsError
from gfprestore.nn.tensors import as_tensors
from gfprestore.parsing import PARSER_SIZE, FaceParser, build_parser
from gfprestore.parsing_network import PARSENET_LABELS, load_parsing_network
from gfprestore.weights import read_state_dict

MEANS = {
    "bisenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "parsenet": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}


def _official(name):
    return BiSeNet(num_class=19) if name == "bisenet" else ParseNet(in_size=512, out_size=512, parsing_ch=19)


def _random_weights(name):
    torch.manual_seed(0)
    network = _official(name).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def _official_scores(network, name, pixels):
    """As facexlib's own inference scripts prepare their input."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in MEANS[name])
    image = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)
    with torch.inference_mode():
        return network((image - mean) / deviation)[0]


def _smooth_pixels(count, size, seed=0):
    noise = torch.from_numpy(np.random.default_rng(seed).random((count, 3, 8, 8), np.float32))
    image = functional.interpolate(noise, (size, size), mode="bicubic").clamp(0, 1)
    return (image.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["bisenet", "parsenet"])
def test_scores_are_those_of_facexlib(name):
    official = _random_weights(name)
    ours, _ = load_parsing_network(official.state_dict())
    pixels = _smooth_pixels(2, 64)
    expected = _official_scores(official, name, pixels)
    with torch.inference_mode():
        scores = ours.scores(torch.from_numpy(pixels))
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert (scores.argmax(1) == expected.argmax(1)).float().mean() > 0.999


def test_bisenet_numbers_its_classes_as_the_labels():
    _, order = load_parsing_network(BiSeNet(num_class=19).state_dict())
    assert order == tuple(FaceLabel)
    # facexlib's visualisation lists them: 1 skin ... 6 glasses ... 10 nose ... 17 hair, 18 hat.
    assert [int(FaceLabel[name]) for name in ("SKIN", "GLASSES", "NOSE", "HAIR", "HAT")] == [1, 6, 10, 17, 18]


def test_parsenet_names_every_class_once():
    assert sorted(PARSENET_LABELS) == sorted(FaceLabel)
    # facexlib's paste keeps classes 1 to 13 (skin to hair) and 15 (earring) of ParseNet and drops the others.
    dropped = {PARSENET_LABELS[index] for index in (0, 14, 16, 17, 18)}
    assert dropped == {
        FaceLabel.BACKGROUND,
        FaceLabel.HAT,
        FaceLabel.NECKLACE,
        FaceLabel.NECK,
        FaceLabel.CLOTHES,
    }


class _Classes:
    """An engine whose class is the pixel's red value."""

    device, precision = "cpu", "fp32"

    def run(self, batch):
        assert batch.shape[1:] == (PARSER_SIZE, PARSER_SIZE, 3) and batch.dtype == np.uint8
        return (batch[..., 0],)


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_crops_of_any_size_are_labelled_in_their_own(size):
    crop = np.zeros((size, size, 3), np.uint8)
    crop[: size // 2, :, 0] = 2
    (labels,) = FaceParser(_Classes(), PARSENET_LABELS).parse([crop])
    assert labels.shape == (size, size) and labels.dtype == np.uint8
    assert (labels[: size // 2] == FaceLabel.NOSE).all() and (labels[size // 2 :] == FaceLabel.BACKGROUND).all()


def test_batches_keep_their_order_and_none_is_fine():
    parser = FaceParser(_Classes(), tuple(FaceLabel))
    assert parser.parse([]) == []
    crops = [np.full((512, 512, 3), value, np.uint8) for value in (17, 1, 6)]
    assert [int(labels[0, 0]) for labels in parser.parse(crops)] == [17, 1, 6]


def test_other_weights_are_refused():
    with pytest.raises(WeightsError, match="face parser"):
        load_parsing_network({"weight": torch.zeros(1)})
    state = BiSeNet(num_class=19).state_dict()
    state.pop("conv_out.conv_out.weight")
    with pytest.raises(WeightsError, match="BiSeNet"):
        load_parsing_network(state)


def _real_weights(folder):
    path = folder / "parsing_bisenet.pth"
    if not path.is_file():
        pytest.skip("no parsing_bisenet.pth")
    state = read_state_dict(path)
    official = BiSeNet(num_class=19).eval()
    official.load_state_dict(as_tensors(state))
    return state, official


@pytest.mark.weights
def test_labels_of_a_real_face_are_those_of_facexlib(real_weights, real_photos):
    state, official = _real_weights(real_weights)
    crop = cut_face(real_photos, "old/a.png", 256)[None]
    expected = _official_scores(official, "bisenet", crop).argmax(1).numpy()
    ours, _ = load_parsing_network(state)
    with torch.inference_mode():
        labels = ours(torch.from_numpy(crop)).numpy()
    assert {FaceLabel.SKIN, FaceLabel.NOSE, FaceLabel.HAIR} <= set(np.unique(expected))
    assert (labels == expected).mean() > 0.9995


@pytest.mark.slow
@pytest.mark.weights
def test_labels_on_the_engine_are_those_of_facexlib(real_weights, real_photos):
    state, official = _real_weights(real_weights)
    crops = [cut_face(real_photos, name) for name in ("old/a.png", "scratched/b.png")]
    expected = _official_scores(official, "bisenet", np.stack(crops)).argmax(1).numpy()
    labels = build_parser(state, device="cpu", precision="fp32").parse(crops)
    assert (np.stack(labels) == expected).mean() > 0.999
