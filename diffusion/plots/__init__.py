"""Figures of real tensors."""
