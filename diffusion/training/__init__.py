"""Training from scratch: tokenizer, text encoder, VAE, U-Net; one loop, one checkpoint format."""
