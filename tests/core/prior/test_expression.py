"""Priors from text: the grammar, the laws of combination and the messages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_priors import GEOMETRY, images, some_prior

from adaptive.core.errors import UserError
from adaptive.core.prior import (
    PRIORS,
    GainPrior,
    LearnedPrior,
    MapPrior,
    build_prior,
    prior_identity,
)

CHEAP = ["gain", "blur", "sobel", "centre", "centre(sigma=0.3)", "random(seed=3)"]
names = st.sampled_from(CHEAP)


def score(expression: str, **options) -> torch.Tensor:
    return build_prior(expression, **options)(images(), GEOMETRY)


def same_up_to_scale(a_BS: torch.Tensor, b_BS: torch.Tensor) -> bool:
    norms = [x.norm(dim=1, keepdim=True) for x in (a_BS, b_BS)]
    return torch.allclose(a_BS / norms[0], b_BS / norms[1], rtol=1.3e-6, atol=1e-5)


@given(name=names)
@settings(max_examples=6)
def test_once_a_prior_is_the_prior_up_to_scale(name):
    assert same_up_to_scale(score(f"1*{name}"), score(name))
    assert same_up_to_scale(score(f"{name}**1"), score(f"0.3*{name}"))


@given(a=names, b=names, c=names)
@settings(max_examples=10)
def test_the_rules_of_sums_and_products_hold(a, b, c):
    torch.testing.assert_close(score(f"{a} + {b}"), score(f"{b} + {a}"))
    torch.testing.assert_close(score(f"{a} * {b}"), score(f"{b} * {a}"))
    torch.testing.assert_close(score(f"{a} * ({b} + {c})"), score(f"{a}*{b} + {a}*{c}"))
    torch.testing.assert_close(score(f"({a} * {b})**2"), score(f"{a}**2 * {b}**2"))


def test_densities_are_normalised_before_they_are_combined():
    prior = build_prior("gain + 0.5*centre")
    parts = [build_prior(name).density(images(), GEOMETRY) for name in ("gain", "centre")]
    levels = []
    for number in range(2):
        gain, centre = (
            part[number] / torch.stack([d.mean((1, 2)) for d in part]).mean(0)[:, None, None]
            for part in parts
        )
        levels.append((16, 4)[number] * (gain + 0.5 * centre).flatten(1))
    torch.testing.assert_close(prior(images(), GEOMETRY), torch.cat(levels, 1))


def test_a_part_that_sees_nothing_leaves_the_choice_to_the_others():
    blank_BCHW = torch.full((1, 3, *GEOMETRY.size), 0.25)
    both_BS = build_prior("gain * centre")(blank_BCHW, GEOMETRY)
    assert same_up_to_scale(both_BS, build_prior("centre")(blank_BCHW, GEOMETRY))


@given(a=names, b=names)
@settings(max_examples=10)
def test_where_images_share_a_budget_each_keeps_its_order(a, b):
    for text in (a, f"{a} * {b}", f"{a}**2"):
        prior = build_prior(text)
        alone_BS, shared_BS = (f(images(), GEOMETRY) for f in (prior, prior.shared))
        for one_S, other_S in zip(alone_BS, shared_BS, strict=True):
            assert same_up_to_scale(other_S[None], one_S[None])


@pytest.mark.parametrize("text", ["gain", "gain**0.5 * centre", "0.5*gain + 0.01*centre"])
def test_shared_scores_say_that_a_fainter_picture_has_less_to_show(text):
    faint = 0.02
    both_BCHW = torch.cat([images()[:1], 0.5 + faint * (images()[:1] - 0.5)])
    strong_S, faint_S = build_prior(text).shared(both_BCHW, GEOMETRY)
    assert strong_S.sum() > 2 * faint_S.sum()
    strong_S, faint_S = build_prior("gain").shared(both_BCHW, GEOMETRY)
    torch.testing.assert_close(faint_S, faint**2 * strong_S, rtol=1e-3, atol=1e-6)


def test_alpha_is_the_parts_where_they_agree():
    assert build_prior("entropy + random").alpha == 0
    assert build_prior("entropy + gain").alpha == 1
    assert build_prior("entropy + gain", alpha=0.25).alpha == 0.25
    assert build_prior("gain", alpha=0.25).alpha == 0.25
    assert build_prior("gain(alpha=0.5)").alpha == 0.5
    assert build_prior("(gain(alpha=0.5) + blur)").alpha == 0.5


def test_a_bare_name_is_that_prior():
    assert type(build_prior("  gain ")) is GainPrior
    assert type(build_prior("(gain)")) is GainPrior
    assert build_prior("entropy(bins=7)").bins == 7


def test_a_prior_written_twice_is_computed_once():
    prior = build_prior("centre*gain + 0.1*gain + centre(sigma=0.1)")
    assert len(prior.parts) == 3


def test_shared_settings_reach_the_priors_that_take_them():
    prior = build_prior("random(seed=1) + random + centre", seed=5)
    assert [getattr(part, "seed", None) for part in prior.parts] == [1, 5, None]
    with pytest.raises(UserError, match="'bins'"):
        build_prior("gain + centre", bins=4)


def test_a_prior_of_ones_own_joins_in():
    class Red(MapPrior):
        def saliency(self, image_BCHW, geometry):
            return image_BCHW[:, 0]

    PRIORS.register("red")(Red)
    try:
        red_BCHW = torch.zeros(1, 3, *GEOMETRY.size)
        red_BCHW[:, 0, :32, 32:] = 1
        for expression in ("red", "red + 0.01*centre", "0.5*centre*red**2"):
            score_BS = build_prior(expression)(red_BCHW, GEOMETRY)
            assert score_BS[0, : GEOMETRY.roots].argmax() == 1
    finally:
        PRIORS._items.pop("red")


@pytest.mark.parametrize(
    ("expression", "column", "message"),
    [
        (" ", 1, "names no prior"),
        ("gain, centre", 1, "only"),
        ("gain +", 7, "no expression"),
        ("gain $ centre", 6, "no expression"),
        ("gain; centre", 5, "no expression"),
        ("2 * 3", 1, "names no prior"),
        ("gian", 1, "did you mean 'gain'"),
        ("0.5*centre + 0.5*featur", 18, "did you mean 'feature'"),
        ("gain - centre", 1, "only"),
        ("gain * -1", 8, "only"),
        ("gain ** -1", 9, "exponent"),
        ("gain ** centre", 9, "exponent"),
        ("gain + 'x'", 8, "neither"),
        ("gain + 1e999", 8, "finite"),
        ("gain + True", 8, "neither"),
        ("entropy(32)", 9, "by name: bins, alpha"),
        ("entropy(bin=32)", 13, "no setting 'bin'"),
        ("entropy(bins=x)", 14, "number or quoted text"),
        ("centre + early", 10, "needs the setting vit"),
        ("gain.density(1)", 1, "by their names"),
        ("[gain]", 1, "only"),
        ("__import__('os')", 1, "unknown prior '__import__'"),
    ],
)
def test_what_cannot_be_read_is_shown_where(expression, column, message):
    with pytest.raises(UserError) as caught:
        build_prior(expression)
    assert str(caught.value).startswith(f"prior={expression!r}, column {column}: ")
    assert message in str(caught.value)


def test_formulas_of_networks_take_settings_that_text_cannot_hold():
    assert some_prior("0.5*early + 0.5*centre")(images(), GEOMETRY).isfinite().all()


def test_what_is_offered_may_be_left():
    offers = {"sigma": 0.3, "vit": "not looked at"}
    assert build_prior("centre", offers=offers).sigma == 0.3
    assert torch.equal(score("gain", offers=offers), score("gain"))
    with pytest.raises(UserError, match="no prior here takes the setting 'sigma'"):
        build_prior("gain", sigma=0.3)


def test_a_prior_is_known_by_its_text_and_the_weights_that_it_names(tmp_path):
    file = tmp_path / "prior.safetensors"
    LearnedPrior(width=4).save(file)
    text = f"gain * (learned(weights='{file}', width=4) + entropy(bins=9))"
    build_prior(text)
    before = prior_identity(text)
    assert before == [text, [[str(file), file.stat().st_size, file.stat().st_mtime_ns]]]
    assert prior_identity(text) == before
    LearnedPrior(width=4).save(file)
    assert prior_identity(text) != before
    assert prior_identity("gain * entropy(bins=9)") == ["gain * entropy(bins=9)", []]
    assert prior_identity(None) is None


def test_of_a_directory_all_files_count_unless_the_prior_knows_better(tmp_path, monkeypatch):
    class Maps(MapPrior):
        def __init__(self, *, folder: str, name: str = "", alpha: float | None = None):
            super().__init__(alpha=alpha)

        def saliency(self, image_BCHW, geometry):
            return image_BCHW[:, 0]

    class Flat(Maps):
        @classmethod
        def files(cls, **settings):
            return super().files(**settings)[:1]

    monkeypatch.setitem(PRIORS._items, "maps", Maps)
    monkeypatch.setitem(PRIORS._items, "flat", Flat)
    (tmp_path / "b").mkdir()
    for name in ("a.npy", "b/c.npy"):
        (tmp_path / name).write_text("map")

    def names(expression: str) -> list[str]:
        identity = prior_identity(expression)
        assert identity is not None
        return [path for path, *_ in identity[1]]

    everything = [str(tmp_path / name) for name in ("a.npy", "b/c.npy")]
    assert names(f"maps(folder='{tmp_path}', name='')") == everything
    assert names(f"flat(folder='{tmp_path}')") == everything[:1]
    assert names(f"maps(folder='{tmp_path}/none')") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gain(", "is no expression of priors"),
        ("gian(bins=3)", "unknown prior 'gian'"),
        ("1 * gain(bins=3)", "column 15: gain has no setting 'bins'"),
    ],
)
def test_an_expression_that_cannot_be_made_has_no_identity(text, words):
    with pytest.raises(UserError, match=words):
        prior_identity(text)
