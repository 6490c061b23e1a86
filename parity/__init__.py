"""Agreement with the PyTorch reference (`diffusers`, `transformers`), measured block by block."""
