from __future__ import annotations

import warnings

import lpips
import numpy as np
import pytest
import torch

from gfprestore.errors import WeightsError
from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.lpips_metric import LEAST_SIDE, LpipsMetric, LpipsNetwork, load_lpips
from gfprestore.evaluation.network import MetricNetwork
from gfprestore.weights import read_tensors

FILES = {"alex": "lpips_alexnet_features.pth", "vgg": "lpips_vgg16_features_fp16.pth"}


def random_features(backbone: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"features.{key}": value for key, value in LpipsNetwork(backbone).features.state_dict().items()}


def package(backbone: str, features: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The `lpips` package's network with the same features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    parts = network.net.state_dict()
    for key in parts:
        parts[key] = features[f"features.{key.partition('.')[2]}"].float()
    network.net.load_state_dict(parts)
    return network.eval()


def stack(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))


@torch.inference_mode()
def compare(backbone, features, truth, methods) -> tuple[np.ndarray, np.ndarray]:
    ours = load_lpips(backbone, features)(stack(truth, *methods)[None])[0]
    truths = stack(truth).float() / 127.5 - 1
    theirs = package(backbone, features)(stack(*methods).float() / 127.5 - 1, truths.expand(len(methods), -1, -1, -1))
    return ours.numpy(), theirs.flatten().numpy()


@pytest.mark.parametrize("backbone", FILES)
def test_agrees_with_the_package_with_random_features(backbone, make_image):
    truth = make_image(64, 80, 1)
    ours, theirs = compare(backbone, random_features(backbone), truth, [make_image(64, 80, 2), truth // 2, truth])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours[2] == 0


@pytest.mark.weights
@pytest.mark.parametrize("backbone", FILES)
def test_agrees_with_the_package_on_real_images(backbone, real_weights, real_patches):
    features = read_tensors(real_weights / FILES[backbone])
    first, second = (patch[:96, :96] for patch in real_patches)
    ours, theirs = compare(backbone, features, first, [second, first // 4 * 4])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert ours[0] > 5 * ours[1] > 0


def test_engine_gives_what_torch_gives_for_any_size(make_image):
    network = load_lpips("alex", random_features("alex"))
    metric = LpipsMetric("alex", MetricNetwork(network, "cpu"))
    for height, width in ((64, 64), (70, 96)):
        images = torch.stack([stack(*(make_image(height, width, seed + i) for i in range(3))) for seed in (0, 5)])
        batch = ImageBatch(("a", "b"), images, has_truth=True)
        with torch.inference_mode():
            expected = network(images).double().numpy()
        np.testing.assert_allclose(metric.measure(batch)["lpips-alex"], expected, rtol=1e-4)


@pytest.mark.parametrize("backbone", FILES)
def test_images_smaller_than_the_network_takes_cannot_be_measured(backbone, make_image):
    least = LEAST_SIDE[backbone]
    metric = LpipsMetric(backbone, MetricNetwork(load_lpips(backbone, random_features(backbone)), "cpu"))
    for height, width in ((least - 1, 64), (64, least - 1), (least, 64), (64, least), (least, least)):
        batch = ImageBatch(("a",), stack(*(make_image(height, width, s) for s in range(3)))[None], has_truth=True)
        values = metric.measure(batch)[f"lpips-{backbone}"]
        assert values.shape == (1, 2)
        assert np.isnan(values).all() == (min(height, width) < least)


def test_gradients_flow_through_distances():
    network = load_lpips("alex", random_features("alex"))
    images = (torch.rand(1, 2, 3, 48, 48) * 2 - 1).requires_grad_()
    network.distances(images).sum().backward()
    assert images.grad is not None
    assert images.grad[0, 1].abs().max() > 0


def test_other_weights_are_refused():
    with pytest.raises(WeightsError, match="LPIPS backbone 'vgg'"):
        load_lpips("vgg", random_features("alex"))
