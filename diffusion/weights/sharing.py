"""`python -m diffusion.weights.sharing FOLDER MODEL`: what two models have in common lies in one.

For models that ship in data/: the parts of FOLDER that MODEL has, too, equal to the last byte, are
removed, and its model_index.json says that they are MODEL's.
"""

import filecmp
import shutil
import sys
from pathlib import Path

from diffusion.weights import configs, folder, places


def share(root: Path, name: str) -> list[str]:
    """The parts that are MODEL's from now on.

    Raises FileNotFoundError where no such model ships.
    """
    other = folder.shipped(name)
    if not (other / configs.INDEX).exists():
        raise FileNotFoundError(f"{name} is no model that ships; those are in {other.parent}")
    index = places.read_json(root / configs.INDEX, root)
    config = folder.load_config(root)
    parts = [one.folder for one in configs.architectures(index).values()] + ["tokenizer"]
    found = [part for part in parts if (root / part).is_dir() and _equal(root / part, other / part)]
    shared = configs.shared(index) | dict.fromkeys(found, name)
    index[configs.OURS] = index.get(configs.OURS, {}) | {configs.SHARED: shared}
    folder.write_json(root / configs.INDEX, index)
    for part in found:
        shutil.rmtree(root / part)
    assert folder.load_config(root) == config
    return found


def _equal(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if not other.is_dir() or names != sorted(path.name for path in other.iterdir()):
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


if __name__ == "__main__":
    print(", ".join(share(Path(sys.argv[1]), sys.argv[2])) or "nothing is the same")
