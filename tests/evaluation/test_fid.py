from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from gfprestore.errors import UsageError, WeightsError
from gfprestore.evaluation import inception
from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.fid import (
    FeatureAccumulator,
    FeatureStatistics,
    FidMetric,
    frechet_distance,
    load_statistics,
    save_statistics,
)


def statistics(features: np.ndarray) -> FeatureStatistics:
    accumulator = FeatureAccumulator(features.shape[1])
    accumulator.add(features)
    return accumulator.statistics()


def gaussian(mean, deviations) -> FeatureStatistics:
    return FeatureStatistics(np.array(mean, float), np.diag(np.square(deviations)).astype(float), 1000)


def test_stream_gives_mean_and_covariance_of_all():
    features = np.random.default_rng(0).normal(1000, 1, (57, 6)).astype(np.float32)
    accumulator = FeatureAccumulator(6)
    for part in np.split(features, [0, 1, 20, 50]):
        accumulator.add(part)
    found = accumulator.statistics()
    np.testing.assert_allclose(found.mean, features.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.astype(float), rowvar=False), rtol=1e-8, atol=1e-9)
    assert found.count == 57


def test_distance_of_known_gaussians():
    first, second = gaussian([0, 0, 1], [1, 2, 0]), gaussian([3, 4, 1], [4, 2, 5])
    assert frechet_distance(first, second) == pytest.approx(25 + 9 + 0 + 25, rel=1e-12)


def test_distance_of_turned_gaussians_is_that_of_the_matrix_root():
    generator = np.random.default_rng(1)
    models = [statistics(generator.normal(size=(40, 8)) @ generator.normal(size=(8, 8))) for _ in range(2)]
    root = scipy.linalg.sqrtm(models[0].covariance @ models[1].covariance).real
    expected = np.sum((models[0].mean - models[1].mean) ** 2)
    expected += np.trace(models[0].covariance + models[1].covariance - 2 * root)
    assert frechet_distance(*models) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(*reversed(models)) == pytest.approx(expected, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_even_when_singular():
    # 20 images cannot fill 200 dimensions.
    features = np.abs(np.random.default_rng(2).normal(0.4, 0.3, (20, 200)))
    model = statistics(features)
    assert frechet_distance(model, model) < 1e-3
    moved = statistics(features + 0.5)
    assert frechet_distance(model, moved) == pytest.approx(200 * 0.25, rel=1e-6)


def test_one_image_is_too_few():
    with pytest.raises(UsageError, match="at least two images"):
        statistics(np.ones((1, 4)))


def test_statistics_survive_the_file(tmp_path):
    model = statistics(np.random.default_rng(3).normal(size=(9, 5)))
    path = tmp_path / "new" / "set.npz"
    save_statistics(path, model)
    read = load_statistics(path)
    np.testing.assert_array_equal(read.mean, model.mean)
    np.testing.assert_array_equal(read.covariance, model.covariance)
    assert read.count == 9


def test_statistics_of_other_projects_are_read(tmp_path):
    np.savez(tmp_path / "pytorch_fid.npz", mu=np.arange(3.0), sigma=np.eye(3))
    torch.save({"name": "x", "size": 512, "mean": np.arange(3.0), "cov": np.eye(3)}, tmp_path / "basicsr.pth")
    for name in ("pytorch_fid.npz", "basicsr.pth"):
        read = load_statistics(tmp_path / name)
        np.testing.assert_array_equal(read.mean, [0, 1, 2])
        np.testing.assert_array_equal(read.covariance, np.eye(3))


@pytest.mark.parametrize("name", ["missing.npz", "text.npz", "text.pth", "other.npz", "shape.npz"])
def test_what_holds_no_statistics_is_refused(tmp_path, name):
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "text.pth").write_text("no")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    np.savez(tmp_path / "shape.npz", mu=np.ones(2), sigma=np.eye(3))
    with pytest.raises(UsageError, match="statistics"):
        load_statistics(tmp_path / name)


def test_features_of_different_lengths_are_refused():
    with pytest.raises(UsageError, match="features"):
        frechet_distance(gaussian([0], [1]), gaussian([0, 0], [1, 1]))


def test_each_method_gathers_its_own_images():
    class Network:
        def run(self, images: torch.Tensor) -> torch.Tensor:
            assert images.is_contiguous()
            return images[:, :, 0, 0].float()

    images = torch.randint(0, 256, (7, 3, 3, 2, 2), dtype=torch.uint8)
    metric = FidMetric(Network(), methods=2, length=3)
    for part in images.split(3):
        metric.add(ImageBatch(("x",) * len(part), part, has_truth=True))
    for method in range(2):
        expected = statistics(images[:, 1 + method, :, 0, 0].numpy())
        found = metric.accumulators[method].statistics()
        np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    distances = metric.distances(metric.accumulators[0].statistics())
    assert distances[0] < 1e-6 < distances[1]
    assert metric.for_methods(1).accumulators[0].count == 0


def test_pooling_leaves_the_padding_out():
    ones = torch.ones(1, 2, 5, 5)
    torch.testing.assert_close(inception._mean_pool(ones), ones)


def test_only_the_last_block_pools_by_maximum():
    network = inception.build_inception()
    assert [network.Mixed_7b.pools_by_maximum, network.Mixed_7c.pools_by_maximum] == [False, True]
    assert all(isinstance(getattr(network, f"Mixed_5{n}"), inception._BlockA) for n in "bcd")
    assert all(isinstance(getattr(network, f"Mixed_6{n}"), inception._BlockC) for n in "bcde")
    weights = network.state_dict()
    features = inception.load_inception(weights)
    with torch.inference_mode():
        given = features(torch.zeros(1, 3, 32, 40, dtype=torch.uint8))
    assert given.shape == (1, inception.FEATURES)
    with pytest.raises(WeightsError, match="Inception"):
        inception.load_inception({key: value for key, value in weights.items() if "Mixed_7c" not in key})


def test_images_are_resized_bilinearly_without_smoothing():
    class Body(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs[:, 0]

    row = torch.arange(0, 256, dtype=torch.uint8).expand(1, 3, 256, 256)
    values = inception.InceptionFeatures(Body())(row).reshape(299, 299)[7]
    centres = np.clip((np.arange(299) + 0.5) * 256 / 299 - 0.5, 0, 255)
    np.testing.assert_allclose(values, centres / 127.5 - 1, atol=1e-5)
