"""The networks that losses look through, the discriminators, and the weights that a training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from gfprestore.errors import UsageError, WeightsError
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.training.config import DiscriminatorConfig, GeneratorConfig, LossConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.discriminators import ComponentDiscriminator, PatchDiscriminator
from gfprestore.training.files import wanted_file
from gfprestore.training.identity import ResNetArcFace, load_onnx_arcface, load_resnet_arcface
from gfprestore.training.networks import (
    build_discriminators,
    build_generator,
    generator_shape,
    load_frozen,
    load_prior_decoder,
)
from gfprestore.training.perceptual import LpipsDistance, load_vgg19

pytestmark = pytest.mark.usefixtures("one_thread")


TINY = GeneratorConfig(size=16, narrow=1 / 32, latent_size=8, mlp_layers=1, random_prior=True)


@pytest.fixture(scope="module")
def vgg():
    # torchvision's own, narrow enough to build quickly would be another network: the features alone are 20 M values.
    torch.manual_seed(0)
    return torchvision.models.vgg19(weights=None).features.eval()


def test_vgg_features_are_torchvisions_before_the_activation(vgg):
    network = load_vgg19({f"features.{key}": value for key, value in vgg.state_dict().items()})
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, expected = ((image + 1) / 2 - mean) / deviation, []
    for index, layer in enumerate(vgg):
        # torchvision's ReLUs work in place.
        x = layer(x.clone())
        if index in (2, 7, 16, 25, 34):
            expected.append(x)
    for found, wanted in zip(network(image), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_vgg_weights_of_another_network_are_refused(vgg):
    with pytest.raises(WeightsError, match="vgg19"):
        load_vgg19({"features.0.weight": torch.zeros(1)})


@pytest.mark.weights
@pytest.mark.parametrize(
    ("backbone", "file", "shrink", "sees_whole"),
    [("alex", "lpips_alexnet_features.pth", 2, True), ("vgg", "lpips_vgg16_features_fp16.pth", 3, False)],
)
def test_lpips_loss_is_the_metric_on_its_views(real_weights, backbone, file, shrink, sees_whole):
    from gfprestore.evaluation.lpips_metric import load_lpips
    from gfprestore.weights import read_tensors

    metric = load_lpips(backbone, read_tensors(real_weights / file))
    loss = LpipsDistance(metric.features, metric.heads, metric.taps, shrink=shrink, sees_whole=sees_whole)
    x, y = torch.rand(2, 3, 128, 128) * 2 - 1, torch.rand(2, 3, 128, 128) * 2 - 1

    def measure(a, b):
        return metric((torch.stack([b, a], dim=1) + 1) * 127.5).mean()

    side = 128 // shrink
    wanted = measure(*(image[..., 128 - side :, :side] for image in (x, y)))
    if sees_whole:
        wanted = wanted + measure(*(torch.nn.functional.avg_pool2d(image, shrink) for image in (x, y)))
    torch.testing.assert_close(loss(x, y, (0.0, 1.0)), wanted, rtol=1e-3, atol=1e-5)


def test_lpips_has_a_gradient_where_features_are_nothing():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU())
    torch.nn.init.constant_(layers[0].bias, -100.0)
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    LpipsDistance(layers, [torch.ones(1, 2, 1, 1)], [2])(image, torch.ones(1, 3, 16, 16), (0.5, 0.5)).backward()
    assert torch.isfinite(image.grad).all()


def test_resnet_arcface_reads_the_official_names():
    network = ResNetArcFace().eval()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    assert {"module.layer2.0.downsample.0.weight", "module.layer1.0.bn0.weight", "module.fc5.weight"} <= state.keys()
    assert not any("downsample" in key for key in state if key.startswith("module.layer1"))
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(load_resnet_arcface(state)(image), network(image))
    del state["module.fc5.bias"]
    with pytest.raises(WeightsError, match="arcface"):
        load_resnet_arcface(state)


@pytest.mark.weights
def test_identity_is_differentiable_and_agrees_with_the_metric(real_weights):
    from gfprestore.evaluation.deg import angle_degrees, load_recogniser

    pytest.importorskip("onnx2torch")
    path = real_weights / "w600k_mbf.onnx"
    network, metric = load_onnx_arcface(path), load_recogniser(path, "cpu")
    pixels = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    image = (pixels.float() / 127.5 - 1).requires_grad_(True)
    embedding = network(image)
    assert angle_degrees(embedding.detach(), metric(pixels)).max() < 0.1
    embedding.sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("damage", ["nothing", "words", "a cut", "another operation"])
def test_a_damaged_onnx_network_is_refused(tmp_path, damage):
    pytest.importorskip("onnx2torch")
    from onnx import TensorProto, helper

    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 112, 112]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"])], "g", info[:1], info[1:])
    foreign = helper.make_model(graph).SerializeToString()
    contents = {"nothing": b"", "words": b"no network", "a cut": foreign[:-20], "another operation": foreign}
    (tmp_path / "w.onnx").write_bytes(contents[damage])
    with pytest.raises(WeightsError, match=r"losses\.identity_weights"):
        load_onnx_arcface(tmp_path / "w.onnx")


def test_discriminators_follow_the_losses():
    config = DiscriminatorConfig(narrow=1 / 32)
    assert list(build_discriminators(16, config, has_face=True, has_components=False)) == ["face"]
    parts = build_discriminators(16, config, has_face=False, has_components=True)
    assert list(parts) == ["left_eye", "right_eye", "mouth"]
    patch = build_discriminators(
        16, DiscriminatorConfig(kind="patch", patch_width=2), has_face=True, has_components=False
    )
    assert isinstance(patch["face"], PatchDiscriminator)
    assert patch["face"](torch.rand(2, 3, 16, 16)).shape == (2, 1, 4, 4)


def test_component_discriminators_give_logits_and_two_features():
    logits, features = ComponentDiscriminator(1 / 32)(torch.rand(2, 3, 20, 20))
    assert logits.shape == (2, 1, 5, 5)
    assert [tuple(f.shape) for f in features] == [(2, 4, 10, 10), (2, 8, 5, 5)]


def test_a_new_generator_starts_with_modulations_near_the_identity():
    torch.manual_seed(0)
    network = build_generator(TINY)
    _, spatial = network.remove_degradation(torch.rand(2, 3, 16, 16) * 2 - 1)
    for scale, shift in network.modulations(spatial):
        assert (scale - 1).abs().mean() < 0.3 and shift.abs().mean() < 0.3
    assert not any(p.requires_grad for p in network.stylegan_decoder.style_mlp.parameters())


def test_a_prior_becomes_the_decoder_and_may_be_kept(tmp_path):
    torch.manual_seed(1)
    prior = Gfpgan(generator_shape(TINY)).stylegan_decoder
    path = tmp_path / "prior.safetensors"
    save_file(prior.state_dict(), path)
    network = build_generator(replace(TINY, prior=str(path), train_prior=False))
    for key, tensor in prior.state_dict().items():
        assert torch.equal(network.stylegan_decoder.state_dict()[key], tensor)
    assert not any(p.requires_grad for p in network.stylegan_decoder.parameters())
    assert network.conv_body_first.weight.requires_grad
    with pytest.raises(WeightsError, match="shape"):
        build_generator(replace(TINY, prior=str(path), narrow=1 / 16))


@pytest.mark.parametrize("preset", ["article", "release"])
def test_a_preset_with_a_prior_is_refused_without_one(preset):
    with pytest.raises(UsageError, match=r"generator\.prior") as caught:
        build_generator(load_config(preset).generator)
    assert "generator.weights" in str(caught.value) and "`gfprestore-train run prior`" in str(caught.value)


def test_a_random_decoder_is_never_kept_as_it_is():
    with pytest.raises(UsageError, match=r"generator\.train_prior"):
        build_generator(replace(TINY, train_prior=False))
    assert load_config("compact").generator.random_prior


def test_the_official_priors_names_and_scales_are_folded(tmp_path):
    torch.manual_seed(2)
    decoder = Gfpgan(generator_shape(TINY)).stylegan_decoder
    state = decoder.state_dict()
    official = {}
    for key, value in state.items():
        if key.startswith("style_mlp"):
            value = value / (0.01 * 2**0.5)
        elif key.endswith("bias") and "style_conv" in key and "modulation" not in key:
            key, value = key.replace(".bias", ".activate.bias"), value.flatten() / 2**0.5
        elif key.startswith("style_conv") and value.shape == (1,):
            value = value / 2**0.5
        if key.endswith("weight") and value.ndim in (2, 5):
            fan_in = value[0].numel() if value.ndim == 2 else value[0, 0].numel()
            value = value * fan_in**0.5
            if key.startswith("style_convs") and value.ndim == 5 and int(key.split(".")[1]) % 2 == 0:
                value = value.flip(-1, -2)
        official[key] = value.contiguous()
    torch.save({"params_ema": official}, tmp_path / "official.pth")
    other = Gfpgan(generator_shape(TINY)).stylegan_decoder
    load_prior_decoder(other, str(tmp_path / "official.pth"))
    for key, tensor in state.items():
        torch.testing.assert_close(other.state_dict()[key], tensor, msg=key)


def test_weights_of_another_shape_are_refused(tmp_path):
    save_file(Gfpgan(generator_shape(TINY)).state_dict(), tmp_path / "w.safetensors")
    build_generator(replace(TINY, weights=str(tmp_path / "w.safetensors")))
    with pytest.raises(WeightsError, match="shape"):
        build_generator(replace(TINY, weights=str(tmp_path / "w.safetensors"), latent_size=9))


def test_a_loss_without_its_network_is_refused():
    with pytest.raises(UsageError, match=r"losses\.vgg19"):
        load_frozen(LossConfig())
    frozen = load_frozen(LossConfig(perceptual=0, perceptual_style=0, identity=0))
    assert frozen.vgg19 is frozen.lpips is frozen.identity is None


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """The only folder that files of the manifest are looked for in; empty."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr("gfprestore.weights.search_folders", lambda _folder=None: [folder])
    return folder


NOTHING = LossConfig(perceptual=0, perceptual_style=0, identity=0)


@pytest.mark.parametrize(
    ("changes", "loss", "key", "advice"),
    [
        ({"perceptual_style": 1.0}, "perceptual_style", "vgg19", r"models/vgg19-dcbb9e9d\.pth"),
        ({"lpips": 1.0}, "lpips", "lpips_alexnet", "fetch alexnet`"),
        ({"lpips_vgg": 1.0}, "lpips_vgg", "lpips_vgg16", "fetch vgg16`"),
        ({"identity": 1.0}, "identity", "identity_weights", "fetch arcface-resnet18`"),
        ({"identity_cosine": 1.0}, "identity_cosine", "identity_weights", "fetch w600k-mbf`"),
    ],
)
@pytest.mark.usefixtures("weights_folder")
def test_the_loss_with_the_weight_its_key_and_its_file_are_named(changes, loss, key, advice):
    with pytest.raises(UsageError, match=rf"losses\.{loss} has a weight but losses\.{key} .*{advice}"):
        load_frozen(replace(NOTHING, **changes))


def test_a_file_of_the_manifest_serves_a_key_that_names_none(weights_folder, monkeypatch):
    monkeypatch.setattr("gfprestore.weights.check_weights", lambda *_: None)
    file = weights_folder / "alexnet-owt-7be5be79.pth"
    for name in (None, "alexnet"):
        with pytest.raises(UsageError, match="gfprestore-weights fetch alexnet"):
            wanted_file(name, "losses.lpips_alexnet", "losses.lpips has a weight")
    file.write_bytes(b"weights")
    for name in (None, "alexnet"):
        assert wanted_file(name, "losses.lpips_alexnet", "losses.lpips has a weight") == file
    assert wanted_file("my.pth", "losses.lpips_alexnet", "losses.lpips has a weight") == Path("my.pth")


def test_a_prior_of_other_widths_tells_its_own(tmp_path):
    path, config = tmp_path / "prior.safetensors", replace(TINY, size=64, latent_size=8)
    save_file(Gfpgan(generator_shape(config)).stylegan_decoder.state_dict(), path)
    told = rf"generator\.channel_multiplier=1 and generator\.narrow={config.narrow:g},"
    with pytest.raises(WeightsError, match=told):
        build_generator(replace(config, prior=str(path), channel_multiplier=2))
