"""The imports between the files of the project, read from the files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """The file of a project module ("roofseg.x", "stages.y"), or None for any other module."""
    base = (root / "src" if name.split(".")[0] == "roofseg" else root).joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if name.split(".")[0] in ("roofseg", "stages") and file.is_file():
            return file
    return None


def imported(file: Path, root: Path = ROOT) -> set[Path]:
    """The project files that ``file`` imports directly, in functions too, with their packages."""
    names = set()
    for node in _walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    with_packages = {
        ".".join(name.split(".")[: depth + 1])
        for name in names
        for depth in range(name.count(".") + 1)
    }
    return {found for name in with_packages if (found := module_file(name, root))}


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _walk(child)


def closure(file: Path, root: Path = ROOT) -> set[Path]:
    """``file`` and every project file that it reaches by imports."""
    reached, waiting = set(), [file]
    while waiting:
        if (current := waiting.pop()) not in reached:
            reached.add(current)
            waiting += imported(current, root)
    return reached
