from __future__ import annotations

import numpy as np
import pytest

from adaptive.core.errors import UserError
from adaptive.textscale.data.fonts import FONTS, font_files, load_font
from adaptive.textscale.data.lettering import Style, set_lines, word_ink


@pytest.mark.parametrize("font", [*font_files("matplotlib"), ""])
@pytest.mark.parametrize("more", [{}, {"spacing": 4}, {"stroke": 2}])
def test_ink_touches_all_four_sides_of_its_mask(font, more):
    mask_hw, _, top = word_ink("Quayside7", Style(font, 30, **more))
    for edge in (mask_hw[0], mask_hw[-1], mask_hw[:, 0], mask_hw[:, -1]):
        assert edge.max() > 0
    assert -40 < top < 0 < top + mask_hw.shape[0]  # a q hangs below the baseline


def test_spacing_and_strokes_make_words_wider():
    font = font_files("matplotlib")[0]
    plain, spaced, bold = (
        word_ink("WORD", Style(font, 40, **more))[0].shape
        for more in ({}, {"spacing": 5}, {"stroke": 2})
    )
    assert 14 <= spaced[1] - plain[1] <= 16 and spaced[0] == plain[0]
    assert bold[0] == plain[0] + 4


def test_each_quad_holds_its_word_and_no_other():
    style = Style(font_files("matplotlib")[0], 32)
    ink = set_lines([["one", "two"], ["three"]], style, leading=1.5, align=1.0)
    assert ink.texts == ("one", "two", "three") and ink.quad_N42.shape == (3, 4, 2)
    left = ink.mask_hw.copy()
    for quad_42, text in zip(ink.quad_N42.astype(int), ink.texts, strict=True):
        (x0, y0), (x1, y1) = quad_42[0], quad_42[2]
        assert (ink.mask_hw[y0:y1, x0:x1] == word_ink(text, style)[0]).all()
        left[y0:y1, x0:x1] = 0
    assert left.max() == 0
    ends = ink.quad_N42[[1, 2], 1, 0]
    assert ends[0] == pytest.approx(ends[1], abs=2)
    assert ink.mask_hw[:, 0].max() > 0 and ink.mask_hw[-1].max() > 0


def test_no_words_are_an_empty_sheet():
    ink = set_lines([[" "]], Style("", 20), 1.0, 0.0)
    assert ink.texts == () and not ink.mask_hw.any()


def test_fonts_do_not_depend_on_the_machine_unless_asked():
    shipped = font_files("matplotlib")
    assert len(shipped) >= 10 and all("mpl-data" in path for path in shipped)
    system = font_files("system")
    assert set(shipped) <= set(system)
    assert set(FONTS) == {"matplotlib", "system"}


def test_a_file_that_is_no_font(tmp_path):
    path = tmp_path / "x.ttf"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="x.ttf cannot be read as a font"):
        load_font(str(path), 12)
    with pytest.raises(UserError, match="unknown set of fonts 'mine'"):
        font_files("mine")


def test_small_sizes_are_legible_ink():
    mask_hw, _, _ = word_ink("small", Style("", 8))
    assert mask_hw.max() > 120 and mask_hw.shape[0] >= 5 and np.count_nonzero(mask_hw) > 30
