"""From a text to numbers: the tokenizer, its files, and characters as CLIP sees them."""
