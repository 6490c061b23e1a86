"""`python -m diffusion` is the command `diffusion`."""

import sys

from diffusion.cli import main

sys.exit(main())
