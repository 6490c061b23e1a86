"""Pictures with captions: the garden, drawn by code."""
