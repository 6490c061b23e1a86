"""The course: lessons that run, and exercises that check themselves."""

from diffusion.course.lesson import Lesson

__all__ = ["Lesson"]
