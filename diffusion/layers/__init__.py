"""The bricks that several stages are built of."""
