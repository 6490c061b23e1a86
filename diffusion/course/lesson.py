"""The first cell of every notebook: where am I, how long does it take, and is my answer right?"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusion.course.exercise import Report, check
from diffusion.course.exercises import EXERCISES
from diffusion.course.words import Words
from diffusion.loading import load
from diffusion.pipeline import Artist
from diffusion.runtime.compilation_cache import keep_compilations
from diffusion.runtime.devices import described

FACTS = Path(__file__).with_name("facts.json")  # written by `make lessons`: title, seconds, GiB


class Lesson:
    """`Lesson(3)` says on what device it runs, and checks the answers to its exercises.

    Args:
        number: of the lesson.
        language: of what it says.

    Raises ValueError for a lesson or a language that there is not.
    """

    def __init__(self, number: int, language: str = "en"):
        self.words = Words(language)
        keep_compilations()
        number = int(number)
        lessons = json.loads(FACTS.read_text(encoding="utf-8"))[language]
        if str(number) not in lessons:
            raise ValueError(f"there is no lesson {number}; choose from {', '.join(lessons)}")
        self.number = number
        self.exercises = EXERCISES.get(number, {})
        facts = lessons[str(number)]
        print(self.words("begin", number=number, title=facts["title"], device=described()))
        if "seconds" in facts:
            print(self.words("measured", **facts))

    @cached_property
    def artist(self) -> Artist:
        """The model that ships."""
        return load("garden64")

    def check(self, name: str, answer: Any) -> Report:
        """Is this the right answer to an exercise?

        Raises ValueError that names the exercises, where there is none of this name.
        """
        if name not in self.exercises:
            raise ValueError(
                f"lesson {self.number} has no exercise {name!r}; it has {', '.join(self.exercises)}"
            )
        return check(name, self.exercises[name], answer, self.words)
