"""`python -m diffusion.course FOLDER` copies the course's notebooks there, to be opened in Jupyter.

Those of the student, and the solved ones in FOLDER/solved.
"""

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
SHELVES = (HERE / "notebooks", HERE.parent / "notebooks")  # of a wheel, and of a clone


def copy(folder: Path, language: str = "en") -> Path:
    """Raises ValueError where there is no such language, or something lies in `folder`."""
    course = next((shelf for shelf in SHELVES if shelf.is_dir()), SHELVES[0])
    languages = sorted(path.name for path in course.glob("*") if path.is_dir())
    if language not in languages:
        raise ValueError(f"there is no course in {language!r}; choose from {', '.join(languages)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; name a new folder")
    shutil.copytree(course / language, folder, dirs_exist_ok=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion.course", description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--language", default="en", help="of the course (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        print(f"copied to {copy(given.folder, given.language)}; open it with: jupyter notebook")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
