"""Columns of any kind to arrays: fitted on the training part, applied alike at serving."""
