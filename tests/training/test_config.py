"""Configurations: presets, files on files, changes, refusals, and the way back to TOML."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.errors import UsageError
from gfprestore.nn.widths import released_widths
from gfprestore.training.config import RunConfig, TrainingConfig
from gfprestore.training.configfile import config_table, config_toml, load_config, parse_config, preset_names
from gfprestore.training.degradation_presets import ARTICLE, OLDPRINT, PRESETS, RELEASE, draw_degradation
from gfprestore.training.jitter import NO_JITTER


def test_presets_are_the_four_of_the_help():
    assert preset_names() == ["article", "compact", "prior", "release"]


@pytest.mark.parametrize("name", ["article", "compact", "prior", "release"])
def test_presets_survive_the_way_through_toml(name):
    config = load_config(name)
    assert parse_config(tomllib.loads(config_toml(config))) == config


def test_presets_hold_the_papers_and_the_releases_numbers():
    article, release = load_config("article"), load_config("release")
    assert release.degradation == RELEASE
    weights = article.losses
    assert (weights.l1, weights.perceptual, weights.adversarial) == (0.1, 1.0, 0.1)
    assert (weights.component, weights.component_style, weights.identity) == (1.0, 200.0, 10.0)
    assert article.optimiser.milestones == (700_000, 750_000) and article.run.steps == 800_000
    assert release.losses.perceptual_style == 50.0 and release.losses.pyramid_steps == 50_000
    assert release.losses.r1_every == 16 and release.run.batch == 12
    assert load_config("compact").degradation == OLDPRINT


def test_the_articles_training_jitters_colours_and_its_test_does_not():
    trained = load_config("article").degradation
    jitter = ("colour_shift", "colour_shift_probability", "jitter_probability")
    assert [getattr(trained, name) for name in jitter] == [getattr(RELEASE, name) for name in jitter]
    assert replace(trained, colour_shift=0.0, colour_shift_probability=0.0, jitter_probability=0.0) == ARTICLE
    tested = draw_degradation(np.random.default_rng(0), PRESETS[load_config("article").validation.degradation])
    assert tested.jitter == NO_JITTER and tested.colour_shift == (0.0, 0.0, 0.0)


def test_a_file_changes_what_it_is_based_on(tmp_path):
    (tmp_path / "a.toml").write_text('base = "compact"\n[losses]\nl1 = 3\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\n[run]\nsteps = 7\n[degradation]\nnoise = [1.0, 2.0]\n')
    config = load_config(str(tmp_path / "b.toml"), ["run.seed=5", "generator.weights=some file.pth"])
    assert config.losses.l1 == 3.0 and config.losses.lpips == load_config("compact").losses.lpips
    assert (config.run.steps, config.run.seed) == (7, 5)
    assert config.generator.weights == "some file.pth"
    assert config.degradation.noise == (1.0, 2.0) and config.degradation.gray_probability == OLDPRINT.gray_probability


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("losses.l2=1", "losses.l2"),
        ("looses.l1=1", "looses"),
        ("degradation.preset='none'", "degradation.preset"),
        ("degradation.nose=[1,2]", "degradation.nose"),
        ("run.steps=1.5", "run.steps"),
        ("run.steps=true", "run.steps"),
        ("run.precision='fp64'", "run.precision"),
        ("optimiser.betas=[0.1]", "optimiser.betas"),
        ("data.sources='faces'", "data.sources"),
        ("losses=3", "losses"),
        ("run.steps", "--set"),
        (".steps=3", "--set"),
    ],
)
def test_what_no_configuration_has_is_refused(change, told):
    with pytest.raises(UsageError, match=told):
        load_config("compact", [change])


RESTORATION_LOSSES = (
    *("l1", "perceptual", "perceptual_style", "lpips", "lpips_vgg", "pyramid", "adversarial"),
    *("component", "component_style", "component_matching", "identity", "identity_cosine"),
)


@pytest.mark.parametrize(
    "change",
    [
        "run.log_every=0",
        "run.checkpoint_every=0",
        "run.accumulate=0",
        "run.batch=0",
        "run.batch=-4",
        "run.seed=-1",
        "losses.r1_every=0",
        "losses.l1=-0.1",
        "losses.l1=nan",
        "losses.perceptual_layers=[1.0]",
        "discriminator.group=0",
        "optimiser.ema_half_life=0",
        "optimiser.ema_half_life=inf",
        "optimiser.learning_rate=0",
        "optimiser.betas=[0.0, 1.0]",
        "prior.path_every=0",
        "prior.mixing=1.5",
        "generator.size=48",
        "generator.size=0",
        "generator.narrow=0",
        "generator.narrow=0.003",
        "discriminator.narrow=0.001",
        "validation.degradation=none",
        "validation.best=ssimm",
        'validation.metrics=["psnr","fid"]',
        "data.workers=-1",
        "data.held_out=-1",
        "validation.count=0",
        "degradation.jpeg_quality=[90, 60]",
        "degradation.jpeg_quality=[60, 101]",
        "degradation.downscale=[0, 8]",
        "degradation.kernel_pixels=40",
        "degradation.gray_probability=1.1",
    ],
)
def test_values_out_of_range_are_refused_by_name(change):
    with pytest.raises(UsageError, match=change.partition("=")[0].replace(".", r"\.")) as refused:
        load_config("release", [change])
    assert str(refused.value).count("\n") == 0


def test_the_narrowest_networks_have_a_channel_everywhere():
    shape = load_config("release", ["generator.narrow=0.03125", "discriminator.narrow=0.03125"])
    widths = released_widths(shape.generator.size, shape.generator.channel_multiplier, shape.generator.narrow / 2)
    assert min(widths) == 1
    with pytest.raises(UsageError, match=r"generator\.narrow is 0\.03125 or more with faces of 512 pixels"):
        load_config("release", ["generator.narrow=0.0312"])


@given(st.sampled_from([64, 128, 256, 512]), st.floats(0.01, 4), st.floats(0.001, 1))
def test_a_configuration_is_refused_where_a_layer_would_have_no_channel(size, multiplier, narrow):
    changes = [f"generator.size={size}", f"generator.channel_multiplier={multiplier}", f"generator.narrow={narrow}"]
    if min(released_widths(size, multiplier, narrow / 2)) > 0:
        assert load_config("release", changes).generator.narrow == narrow
    else:
        with pytest.raises(UsageError, match=r"generator\.narrow is .* no channel"):
            load_config("release", changes)


def test_a_prior_alone_is_a_configuration(tmp_path):
    (tmp_path / "prior.toml").write_text('recipe = "prior"\n')
    config = load_config(str(tmp_path / "prior.toml"))
    assert config.recipe == "prior" and config.validation.every


def test_another_preset_of_degradations_drops_what_changed_the_first(tmp_path):
    assert load_config("article", ["degradation.preset=oldprint"]).degradation == OLDPRINT
    changes = ["degradation.noise=[1.0, 2.0]", "degradation.preset=oldprint"]
    for ordered in (changes, changes[::-1]):
        assert load_config("article", ordered).degradation == replace(OLDPRINT, noise=(1.0, 2.0))
    (tmp_path / "a.toml").write_text('base = "article"\n[degradation]\npreset = "release"\n')
    assert load_config(str(tmp_path / "a.toml")).degradation == RELEASE
    same = load_config("article", ["degradation.preset=article"])
    assert same.degradation == load_config("article").degradation


def test_what_may_be_none_at_all_is_kept():
    changes = ["run.images_every=0", "validation.every=0", "run.threads=0", "data.workers=0", "losses.r1=0"]
    assert load_config("release", [*changes, "degradation.hue=[-0.2, 0.1]"]).run.images_every == 0


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("release", [f"losses.{name}=0" for name in RESTORATION_LOSSES]),
        (
            "release",
            ["losses.adversarial_from=5", *(f"losses.{n}=0" for n in RESTORATION_LOSSES if n != "adversarial")],
        ),
        ("prior", ["losses.adversarial=0"]),
    ],
)
def test_a_run_that_would_learn_nothing_is_refused(recipe, changes):
    with pytest.raises(UsageError, match=r"losses\."):
        load_config(recipe, changes)


def test_circles_missing_files_and_other_texts_are_refused(tmp_path):
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    a.write_text('base = "b.toml"')
    b.write_text('base = "a.toml"')
    with pytest.raises(UsageError, match="each other"):
        load_config(str(a))
    with pytest.raises(UsageError, match="article, compact"):
        load_config("compakt")
    b.write_text("steps: 3")
    with pytest.raises(UsageError, match="no TOML"):
        load_config(str(b))


@given(
    st.builds(
        RunConfig,
        steps=st.integers(0, 10**9),
        device=st.text(st.characters(codec="utf-8"), max_size=9),
        channels_last=st.booleans(),
    ),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)
def test_every_value_survives_the_way_through_toml(run, number):
    table = config_table(TrainingConfig(run=run))
    table["losses"]["l1"] = number
    config = parse_config(table)
    assert parse_config(tomllib.loads(config_toml(config))) == config
