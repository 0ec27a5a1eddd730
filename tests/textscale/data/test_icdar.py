from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.textscale.data.icdar import format_words, read_words
from adaptive.textscale.words import Words

COORDINATES = "377,117,463,117,465,130,378,130"


@pytest.mark.parametrize(
    ("line", "text", "care"),
    [
        (",Genaxis Theatre", "Genaxis Theatre", True),
        (",a,b,,c", "a,b,,c", True),
        (",###", "###", False),
        (',"###"', "###", False),
        (r',"say \"hi\" \\ there"', r"say \"hi\" \ there".replace(r"\"", '"'), True),
        (",", "", True),
        (",line\u2028separator\x85", "line\u2028separator\x85", True),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_of_the_format(line, text, care, ends, mark):
    content = f"{mark}{COORDINATES}{line}{ends}{ends}".encode()
    words = read_words(content, name="gt_img_1.txt")
    assert words.texts == (text,) and words.care_N.tolist() == [care]
    assert words.quad_N42.reshape(-1).tolist() == [float(c) for c in COORDINATES.split(",")]


def test_a_script_comes_first_in_the_multilingual_set(tmp_path):
    path = tmp_path / "gt_img_1.txt"
    path.write_text(f"{COORDINATES},Arabic,a,b\n{COORDINATES},None,###\n")
    words = read_words(path, "mlt17")
    assert words.texts == ("a,b", "###") and words.care_N.tolist() == [True, False]


@pytest.mark.parametrize(
    ("line", "format", "words"),
    [
        ("1,2,3,4,text", "icdar15", "gt.txt:2 has 5 fields, not the 9 of x1,y1"),
        (f"{COORDINATES},word", "mlt17", "gt.txt:2 has 9 fields, not the 10 of .*script"),
        ("1,2,3,4,5,6,7,x,text", "icdar15", "gt.txt:2 has 'x' among its eight coordinates"),
        ("1,2,3,4,5,6,7,inf,text", "icdar15", "gt.txt:2 has 'inf'"),
        (COORDINATES, "icdra15", "unknown format of annotations 'icdra15'.*did you mean"),
    ],
)
def test_a_wrong_line_is_named_with_its_file(line, format, words, tmp_path):
    path = tmp_path / "gt.txt"
    good = f"{COORDINATES},{'Latin,' * (format == 'mlt17')}word\n"
    path.write_text(good + line)
    with pytest.raises(UserError, match=words):
        read_words(path, format)


def test_another_encoding_is_told_with_its_line():
    content = f"{COORDINATES},word\n{COORDINATES},caf".encode() + b"\xe9\n"
    with pytest.raises(UserError, match="gt.txt:2 is not UTF-8"):
        read_words(content, name="gt.txt")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"gt_img_1.txt cannot be read: No such file"):
        read_words(tmp_path / "gt_img_1.txt")


quads = st.lists(st.floats(-1e3, 1e4, width=32), min_size=8, max_size=8)
texts = st.text(st.characters(exclude_characters="\r\n", codec="utf-8")).filter(
    lambda text: text != "###" and not text.strip().startswith('"')
)


@given(st.lists(st.tuples(quads, st.booleans(), texts), max_size=4))
def test_what_was_written_is_read(rows):
    words = Words(
        np.array([quad for quad, _, _ in rows], np.float32).reshape(-1, 4, 2),
        np.array([care for _, care, _ in rows], bool),
        tuple(text for _, _, text in rows),
    )
    read = read_words(format_words(words).encode(), name="gt.txt")
    assert np.abs(read.quad_N42 - words.quad_N42).max(initial=0) <= 0.0055
    assert read.care_N.tolist() == words.care_N.tolist()
    assert read.texts == tuple(text if care else "###" for _, care, text in rows)
