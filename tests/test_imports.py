"""Imports run downward: a file knows nothing of who uses it."""

import ast
from pathlib import Path

import pytest

import diffusion

ROOT = Path(diffusion.__file__).parent
LEVELS = (  # from the ground up; what stands in one line may not import one another
    ("config_checks",),
    ("config_codes",),
    ("atomic_write", "config", "config_text", "images"),
    ("kernels", "motion_config", "presets"),
    ("layers",),
    ("stages", "process", "text", "datasets"),
    ("runtime", "settings"),
    ("web_parameters",),
    ("weights", "picture_files", "film_settings"),
    ("conditioning", "picture_reading", "film", "film_files"),
    ("pipeline",),
    ("filming",),
    ("loading",),
    ("training", "painting", "cli_settings"),
    ("film_painting",),
    ("inspection", "evaluation"),
    ("course", "cli"),
    ("__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def room(path: Path) -> str:
    """The package or the file right below diffusion/ that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms of `diffusion` that a file imports, wherever the line stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "diffusion":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffusion."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {(*parts, "__init__")[1] for parts in names if parts[0] == "diffusion"}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")


def test_every_room_has_a_level():
    assert {room(path) for path in ROOT.rglob("*.py")} == LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_upward(path):
    own = room(path)
    others = imported(path) - {own}
    if own == "cli":
        others -= {"__init__"}  # `diffusion.load`, which a user has, too
    assert {name for name in others if LEVEL[name] >= LEVEL[own]} == set()
