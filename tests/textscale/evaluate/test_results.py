from __future__ import annotations

import numpy as np
import pytest

from adaptive.core.errors import UserError
from adaptive.textscale.evaluate.results import (
    format_detections,
    read_detections,
    read_results,
    write_results,
)
from adaptive.textscale.words import Detections

QUAD = [[(1, 2), (30, 2), (30, 12), (1, 12)]]
FOUND = Detections(np.array(QUAD, np.float32), np.array([0.25], np.float32))


@pytest.mark.parametrize(
    ("tail", "score"),
    [("", 1.0), (",0.25", 0.25), (",word", 1.0), (",0.5,a, b", 0.5), (",7 up", 1.0), (",42", 1.0)],
)
def test_scores_and_texts_may_follow_or_not(tail, score):
    content = f"\ufeff1,2,30,2,30,12,1,12{tail}\r\n\r\n".encode()
    found = read_detections(content, "res_img_1.txt")
    assert found.quad_N42.tolist() == FOUND.quad_N42.tolist()
    assert found.score_N == pytest.approx([score])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,2,3", "res_img_1.txt:2 has 3 fields, not the 8 to 10"),
        ("1,2,30,2,30,x,1,12", "res_img_1.txt:2 has 'x' among its eight coordinates"),
        ("1,2,30,2,nan,3,1,12", "res_img_1.txt:2 has 'nan'"),
    ],
)
def test_a_wrong_line_is_named(line, words):
    with pytest.raises(UserError, match=words):
        read_detections(f"1,2,30,2,30,12,1,12\n{line}\n".encode(), "res_img_1.txt")


@pytest.mark.parametrize("home", ["results", "results.zip"])
def test_what_was_written_is_read(home, tmp_path):
    results = {"img_1": FOUND, "img_2": Detections.none(), "sign": FOUND}
    write_results(tmp_path / home, results, scores=True)
    read = read_results(tmp_path / home)
    assert set(read) == set(results)
    for sample, found in results.items():
        assert read[sample].quad_N42.tolist() == found.quad_N42.tolist()
        assert read[sample].score_N.tolist() == found.score_N.tolist()


def test_the_script_of_the_competition_gets_whole_numbers_and_clockwise_corners():
    turned = Detections(np.array(QUAD, np.float32)[:, ::-1] - 0.4, np.ones(1, np.float32))
    assert format_detections(turned) == "1,2,30,2,30,12,1,12\n"
    assert format_detections(FOUND, scores=True) == "1,2,30,2,30,12,1,12,0.2500\n"


def test_an_empty_folder_of_results_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="holds no .txt files: one res_NAME.txt"):
        read_results(tmp_path)
