"""Weights in and out of files: safetensors only, never pickle."""
