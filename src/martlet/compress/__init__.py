"""Transforms that make a bundle smaller or faster."""
