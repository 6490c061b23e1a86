"""The look inside a real run: its tensors, and figures of them."""
