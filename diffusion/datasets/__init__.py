"""Pictures with captions, made by code: the garden."""
