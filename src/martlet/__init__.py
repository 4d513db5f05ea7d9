"""Martlet: recommenders that are cheap to train and to serve."""
