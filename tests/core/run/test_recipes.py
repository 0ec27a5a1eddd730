from __future__ import annotations

import pytest
import toy

from adaptive.core.run.recipes import recipe_list, recipes


@pytest.mark.parametrize(
    "arguments", [["--config-dir", str(toy.RECIPES), "+exp=toy"], [f"-cd={toy.RECIPES}"]]
)
def test_recipes_of_ones_own_are_listed_with_their_story(arguments):
    assert recipes(arguments) == sorted([*recipes(), "toy"])
    lines = [line.split(maxsplit=1) for line in recipe_list(arguments).splitlines()]
    assert ["toy", "Adds up random numbers, for $0"] in lines


def test_a_long_story_is_cut_at_a_word(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "long.yaml").write_text("# " + "word " * 40)
    (line,) = [x for x in recipe_list(["-cd", str(tmp_path)]).splitlines() if "long" in x]
    assert line.endswith("word …") and len(line) < 110
