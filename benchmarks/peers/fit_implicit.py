"""Fits implicit's alternating least squares sweep by sweep; runs under ``.venv-peers/implicit``."""
# ruff: noqa: E402  (BLAS reads its threads when NumPy is loaded)

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"  # as implicit advises: its own threads go over rows

import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from _answer import answer
from implicit.als import AlternatingLeastSquares


def prepare(folder, threads):
    folder = Path(folder)

    def run(matrix, dim, weight, reg, steps, sweeps, seed, keep):
        """Return wall and CPU seconds at the end of each sweep, what is kept on disk left out."""
        indptr, indices, shape = (
            np.load(folder / f"{matrix}.{part}.npy") for part in ("indptr", "indices", "shape")
        )
        # Confidence of an observed pair; of all others it is 1.
        confidence = np.full(len(indices), 1 + weight, np.float32)
        users = sp.csr_matrix((confidence, indices, indptr), shape=shape)
        model = AlternatingLeastSquares(
            factors=dim,
            regularization=reg,
            iterations=sweeps,
            num_threads=int(threads),
            random_state=seed,
        )
        model.cg_steps = steps
        marks, paused = [], np.zeros(2)

        def after(sweep, *_):
            now = np.array([time.perf_counter(), time.process_time()])
            marks.append((now - begin - paused).tolist())
            if keep:
                for name in ("user", "item"):
                    np.save(folder / f"{name}.{sweep}.npy", getattr(model, f"{name}_factors"))
            paused[:] += np.array([time.perf_counter(), time.process_time()]) - now

        begin = np.array([time.perf_counter(), time.process_time()])
        model.fit(users, show_progress=False, callback=after)
        return {"marks": marks}

    return run


answer(prepare)
