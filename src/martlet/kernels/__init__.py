"""Array functions in Numba, each with a NumPy reference."""
