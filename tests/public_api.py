"""The public names of the library as text, read from its sources: nothing is imported.

``make api`` writes ``tests/api.txt``, which ``test_api.py`` compares with what the sources say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests" / "api.txt"
# What users may import from. What these packages do not name in ``__all__`` may change any day.
PUBLIC = (
    "adaptive",
    "adaptive.core",
    "adaptive.core.cost",
    "adaptive.core.engine",
    "adaptive.core.hardware",
    "adaptive.core.prior",
    "adaptive.core.report",
    "adaptive.core.run",
    "adaptive.core.solvers",
    "adaptive.core.solvers.quadtree",
    "adaptive.core.testing",
    "adaptive.llm_puzzle",
    "adaptive.llm_puzzle.evaluate",
    "adaptive.llm_puzzle.export",
    "adaptive.quadformer",
    "adaptive.quadformer.baselines",
    "adaptive.quadformer.data",
    "adaptive.quadformer.evaluate",
    "adaptive.textscale",
    "adaptive.textscale.baselines",
    "adaptive.textscale.network",
    "adaptive.zoo",
)


def source(module: str) -> ast.Module:
    """The syntax tree of a module or a package's ``__init__``."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Those of a module, and those for type checkers alone."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body


def names(module: str) -> list[str]:
    """``__all__`` of a module."""
    for node in source(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{module} has no __all__")


def definition(module: str, name: str) -> ast.stmt:
    """Where a name is defined, whatever modules hand it on."""
    for node in statements(source(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return definition(str(node.module), alias.name)
        elif name == getattr(node, "name", None):
            return node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in map(ast.unparse, targets):
                return node
    raise ValueError(f"{module} does not define {name}")


def signature(node: ast.FunctionDef, indent: str) -> str:
    """A function with its arguments and result; a method says what kind it is."""
    kinds = {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}
    kind = next((f"{k} " for k in sorted(kinds) if k.endswith(("property", "method"))), "")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in kind:
        return f"{indent}property {node.name}{result.replace(' ->', ':')}"
    return f"{indent}{kind}{node.name}({ast.unparse(node.args)}){result}"


def described(name: str, node: ast.stmt, indent: str = "  ") -> Iterator[str]:
    """The lines of a public name: a signature, or a class with its fields and methods."""
    if isinstance(node, ast.FunctionDef):
        yield signature(node, indent)
    elif isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        # How a dataclass is made decides its constructor, its equality and whether it may change.
        made = [ast.unparse(d) for d in node.decorator_list if "dataclass" in ast.unparse(d)]
        kind = "".join(f"{text} " for text in made)
        yield f"{indent}{kind}class {node.name}" + (f"({bases})" if bases else "")
        for member in node.body:
            if isinstance(member, ast.FunctionDef):
                if member.name in ("__init__", "__call__") or member.name[0] != "_":
                    yield signature(member, indent + "  ")
            elif isinstance(member, ast.AnnAssign | ast.Assign):
                targets = member.targets if isinstance(member, ast.Assign) else [member.target]
                if ast.unparse(targets[0])[0] != "_":
                    yield f"{indent}  {ast.unparse(member)}"
    elif isinstance(node, ast.AnnAssign):
        yield f"{indent}{name}: {ast.unparse(node.annotation)}"
    else:
        yield f"{indent}{name}"


def listing() -> str:
    """All of it: a block a package."""
    blocks = []
    seen: dict[str, str] = {}
    for module in PUBLIC:
        lines = [module]
        for name in sorted(names(module)):
            node = definition(module, name)
            first = seen.setdefault(f"{name} {ast.unparse(node)}", module)
            here = first == module
            lines.extend(described(name, node) if here else [f"  {name} as in {first}"])
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
