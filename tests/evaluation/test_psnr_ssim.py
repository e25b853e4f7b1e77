from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.matching import match_channels
from gfprestore.evaluation.psnr import PsnrMetric, psnr
from gfprestore.evaluation.ssim import SsimMetric, _blur_on_device, _blur_on_processor, _similarity, ssim


def as_tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))


def noisy(image: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, strength, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def skimage_ssim(first: np.ndarray, second: np.ndarray) -> float:
    return structural_similarity(
        first.astype(np.float64),
        second.astype(np.float64),
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def loop_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """The formula, window by window."""
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for channel in range(3):
        for top in range(first.shape[0] - 10):
            for left in range(first.shape[1] - 10):
                x = first[top : top + 11, left : left + 11, channel].astype(np.float64)
                y = second[top : top + 11, left : left + 11, channel].astype(np.float64)
                mean_x, mean_y = (window * x).sum(), (window * y).sum()
                variances = (window * (x - mean_x) ** 2).sum() + (window * (y - mean_y) ** 2).sum()
                covariance = (window * (x - mean_x) * (y - mean_y)).sum()
                c1, c2 = 2.55**2, 7.65**2
                values.append(
                    (2 * mean_x * mean_y + c1)
                    * (2 * covariance + c2)
                    / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
                )
    return float(np.mean(values))


def matched_in_two_rounds(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What the published script does, step by step: shift, scale about zero, and both again."""
    result = restored.astype(np.float64)
    for _ in range(2):
        for channel in range(3):
            plane, wanted = result[..., channel], truth[..., channel].astype(np.float64)
            plane = plane - plane.mean() + wanted.mean()
            result[..., channel] = plane / plane.std() * wanted.std()
    return result


def test_psnr_of_a_constant_difference():
    truth = np.full((12, 12, 3), 100, np.uint8)
    values = psnr(as_tensor(truth + 1, truth + 10)[None], as_tensor(truth))
    np.testing.assert_allclose(values, [[20 * np.log10(255), 20 * np.log10(25.5)]], rtol=1e-6)
    assert psnr(as_tensor(truth)[None], as_tensor(truth)).item() == np.inf


def test_agree_with_scikit_image_on_real_images(real_patches):
    for strength, truth in enumerate(real_patches, start=8):
        restored = noisy(truth, strength)
        tensors = as_tensor(restored)[None], as_tensor(truth)
        assert psnr(*tensors).item() == pytest.approx(peak_signal_noise_ratio(truth, restored), abs=1e-4)
        assert ssim(*tensors).item() == pytest.approx(skimage_ssim(truth, restored), abs=1e-5)


def test_agree_with_scikit_image(make_image):
    truth = make_image(40, 33, 1)
    methods = [noisy(truth, 5), noisy(truth, 30), truth]
    tensors = as_tensor(*methods)[None], as_tensor(truth)
    np.testing.assert_allclose(ssim(*tensors)[0], [skimage_ssim(truth, m) for m in methods], atol=1e-5)
    assert ssim(*tensors)[0, 2].item() == pytest.approx(1, abs=1e-6)


def test_ssim_agrees_with_loops_in_float64(make_image):
    truth = make_image(15, 17, 2)
    restored = noisy(truth, 12)
    assert ssim(as_tensor(restored)[None], as_tensor(truth)).item() == pytest.approx(
        loop_ssim(restored, truth), abs=1e-6
    )


def test_both_ways_agree(make_image):
    truth = make_image(20, 24, 6)
    planes = [as_tensor(image)[0].float() for image in (noisy(truth, 9), truth)]
    values = _similarity(*(plane[None, None] for plane in planes), _blur_on_device)[0, 0]
    for channel in range(3):
        expected = _similarity(*(plane[channel].numpy() for plane in planes), _blur_on_processor)
        np.testing.assert_allclose(values[channel], expected, atol=1e-5)


def test_matching_equals_the_published_two_rounds(make_image):
    truth, other = make_image(24, 24, 3), make_image(24, 24, 4)
    restored = (noisy(truth, 10) * 0.6).astype(np.uint8)
    batch = ImageBatch(("a",), as_tensor(truth, restored, other)[None], has_truth=True)
    expected = [matched_in_two_rounds(image, truth) for image in (restored, other)]
    np.testing.assert_allclose(batch.matched[0], [e.transpose(2, 0, 1) for e in expected], atol=2e-3)
    error = [np.mean((e - truth) ** 2) for e in expected]
    values = PsnrMetric(is_matched=True).measure(batch)["psnr-matched"]
    np.testing.assert_allclose(values[0], 10 * np.log10(255**2 / np.array(error)), atol=1e-4)
    similar = SsimMetric(is_matched=True).measure(batch)["ssim-matched"]
    np.testing.assert_allclose(similar[0], [skimage_ssim(e, truth) for e in expected], atol=1e-4)


def test_matching_forgives_tone_and_survives_one_value(make_image):
    truth = make_image(16, 16, 5)
    dimmed = truth.astype(np.float32) * 0.5 + 30
    matched = match_channels(as_tensor(dimmed)[None], as_tensor(truth))
    torch.testing.assert_close(matched[0, 0], as_tensor(truth)[0].float(), rtol=0, atol=1e-2)
    flat = match_channels(as_tensor(np.full_like(truth, 7))[None], as_tensor(truth))
    expected = truth.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(flat[0, 0].mean((1, 2)), expected, rtol=1e-5)
    assert flat[0, 0].std((1, 2)).max() < 1e-3


def test_batches_give_what_single_images_give(make_image):
    truths = [make_image(20, 20, seed) for seed in range(3)]
    methods = [[noisy(truth, 5), noisy(truth, 15)] for truth in truths]
    stacked = torch.stack([as_tensor(*pair) for pair in methods])
    for measure in (psnr, ssim):
        together = measure(stacked, as_tensor(*truths))
        alone = [measure(stacked[i : i + 1], as_tensor(truths[i])) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_images_under_the_window_of_ssim_cannot_be_measured():
    for height, is_measured in ((11, True), (10, False)):
        values = ssim(torch.zeros(2, 3, 3, height, 30), torch.zeros(2, 3, height, 30))
        assert values.shape == (2, 3)
        assert (torch.isnan(values) != is_measured).all()


@pytest.mark.gpu
def test_a_gpu_gives_what_the_processor_gives(make_image):
    truth = make_image(64, 64, 7)
    images = as_tensor(truth, noisy(truth, 9), noisy(truth, 20))[None]
    here, there = (ImageBatch(("a",), images.to(device), has_truth=True) for device in ("cpu", "cuda"))
    for metric in (PsnrMetric, SsimMetric):
        for is_matched in (False, True):
            values = metric(is_matched=is_matched)
            for column, expected in values.measure(here).items():
                np.testing.assert_allclose(values.measure(there)[column], expected, rtol=1e-4)
