"""Compiled programs that outlive a process, so that the second start is fast."""

import sys

import jax
import platformdirs


def keep_compilations() -> None:
    """Let JAX keep compiled programs in the user's cache folder; says so the first time."""
    cache = platformdirs.user_cache_path("diffusion") / "jax"
    if not cache.exists():
        print(
            f"first run: JAX compiles the stages for this machine, once; kept in {cache}",
            file=sys.stderr,
            flush=True,
        )
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
