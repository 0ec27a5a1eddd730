"""From files to the competition's numbers."""

from __future__ import annotations

import zipfile

import pytest

import adaptive
from adaptive.core.errors import UserError

GT = {
    "gt_img_1.txt": "\ufeff0,0,40,0,40,10,0,10,one, two\r\n50,0,90,0,90,10,50,10,###\r\n",
    "gt_img_2.txt": "0,0,80,0,80,30,0,30,three\n",
    "gt_img_10.txt": "",
}
RESULTS = {
    "res_img_1.txt": "0,0,40,0,40,10,0,10\n52,0,88,0,88,10,52,10\n0,50,9,50,9,60,0,60\n",
    "res_img_10.txt": "",
}


@pytest.fixture
def files(tmp_path):
    for home, content in (("gt", GT), ("results", RESULTS)):
        (tmp_path / home).mkdir()
        for name, text in content.items():
            (tmp_path / home / name).write_bytes(text.encode())
        with zipfile.ZipFile(tmp_path / f"{home}.zip", "w") as archive:
            for name, text in content.items():
                archive.writestr(f"inside/{name}", text)
            archive.writestr(f"__MACOSX/._{next(iter(content))}", b"\x00")
    return tmp_path


def run(files, gt="gt", results="results", *more):
    return adaptive.load(
        "textscale_score", f"gt={files / gt}", f"results={files / results}", *more
    ).run(files / "run")


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_folders_and_archives_are_scored_alike(files, suffix, capsys):
    summary = run(files, f"gt{suffix}", f"results{suffix}").summary
    assert summary == {
        **{"precision": 0.5, "recall": 0.5, "hmean": 0.5},
        **{"care_words": 2, "care_detections": 2, "matches": 1},
        **{"tiou.precision": 0.5, "tiou.recall": 0.5, "tiou.hmean": 0.5},
        **{"recall.h_lt16": 1.0, "recall.h16_24": None, "recall.h24_40": 0.0},
        **{"recall.h_gt40": None, "images": 3, "images_without_results": 1},
    }
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{printed}" for name in ("precision", "care_words", "matches"))


def test_annotations_find_themselves(files):
    summary = run(files, "gt", "gt").summary
    assert (summary["hmean"], summary["matches"], summary["care_words"]) == (1.0, 2, 2)


def test_the_report_tells_heights_and_the_worst_images(files):
    page = run(files).report.read_text()
    assert "By height" in page and "24 to 40" in page
    assert page.index("<td>img_1</td>") > page.index("Most mistakes")
    assert "<td>img_10</td>" not in page


def test_files_that_change_are_scored_again(files):
    assert run(files).summary["matches"] == 1
    (files / "results" / "res_img_1.txt").write_text("0,0,10,0,10,10,0,10\n")
    assert run(files).summary["matches"] == 0


def test_annotations_of_the_multilingual_set_have_a_script(files):
    for name, text in GT.items():
        rows = [line.split(",", 8) for line in text.split("\n") if line]
        rewritten = "\n".join(",".join([*row[:8], "Latin", row[8]]) for row in rows)
        (files / "gt" / name).write_bytes(rewritten.encode())
    assert run(files, "gt", "results", "format=mlt17").summary["matches"] == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("gt=''", "gt is empty"),
        ("results=''", "results is empty"),
        ("format=coco", "unknown format of annotations 'coco'"),
    ],
)
def test_settings_that_mean_nothing(setting, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("textscale_score", setting)


def test_results_of_other_images_are_not_scored(files):
    (files / "results" / "res_img_3.txt").write_text("")
    with pytest.raises(UserError, match=r"file of 'img_3', for which gt=.* has no gt_img_3.txt"):
        run(files)


def test_a_folder_that_is_not_there(files):
    with pytest.raises(UserError, match="results=.*nowhere: there is no such folder"):
        run(files, "gt", "nowhere")
