from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_in_the_wheel():
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for home in ("adaptive", "hydra_plugins")
        for path in (ROOT / home).rglob("__init__.py")
    }
    listed = set(setup()["options"]["packages"].split())
    assert listed == on_disk | {"adaptive.experiments"}


def test_every_file_that_is_not_python_is_in_the_wheel():
    data = {
        package: [pattern.strip() for pattern in patterns.split(",")]
        for package, patterns in setup()["options.package_data"].items()
    }
    packages = setup()["options"]["packages"].split()
    homes = {p: ROOT / p.replace(".", "/") for p in packages} | {
        "adaptive.experiments": ROOT / "experiments"
    }
    shipped: set[Path] = set()
    for package, home in homes.items():
        for pattern in data["*"] + data.get(package, []):
            shipped.update(home.glob(pattern))
    tree = [*(ROOT / "adaptive").rglob("*"), *(ROOT / "experiments" / "exp").rglob("*")]
    files = {f for f in tree if f.is_file() and f.suffix not in (".py", ".pyc", ".md")}
    assert files - shipped == set()


def test_no_module_is_larger_than_a_room():
    """Design rule 8: more than 400 lines wants a reason, 600 is the limit."""
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / "adaptive").rglob("*.py")
    }
    assert max(sizes.values()) <= 600, sizes
    assert sorted(sizes.values())[len(sizes) // 2] <= 200
