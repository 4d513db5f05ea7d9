"""The same work in pandas: read, drop bad rows, merge repeats, k-core, split, number, sort, write.

It runs under ``.venv-peers/pandas``, and each frame is dropped as soon as the next one stands.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from _answer import answer

NAMES = {"user_id": "user_row", "item_id": "item_row", "rating": "weight", "timestamp": "time_s"}
PARTS = ("train", "valid", "test")


def start(log, out, least):
    least, out = int(least), Path(out)
    out.mkdir()

    def run():
        frame = pd.read_parquet(log)
        latest = time.time() + 86_400
        good = np.isfinite(frame["rating"]) & frame["timestamp"].between(0, latest)
        frame = frame[good & frame["user_id"].notna() & frame["item_id"].notna()]
        texts = {}
        for name in ("user_id", "item_id"):
            if not pd.api.types.is_integer_dtype(frame[name]):  # text is looked at once
                frame[name], texts[name] = pd.factorize(frame[name], sort=True)
        frame = frame.sort_values("timestamp", kind="stable")
        frame = frame.drop_duplicates(["user_id", "item_id"], keep="last")
        size = -1
        while len(frame) != size:
            size = len(frame)
            for name in ("user_id", "item_id"):
                frame = frame[frame.groupby(name)[name].transform("size") >= least]
        cuts = frame["timestamp"].quantile([0.8, 0.9], interpolation="higher").to_numpy()
        frame["part"] = np.searchsorted(cuts, frame["timestamp"], side="right").astype(np.int8)
        train = frame["part"] == 0
        for name in ("user_id", "item_id"):
            ids = frame[name].unique()
            count = frame.loc[train, name].value_counts().reindex(np.sort(ids), fill_value=0)
            ids = count.sort_values(ascending=False, kind="stable").index
            rows = pd.Series(np.arange(len(ids), dtype=np.int32), index=ids)
            frame[name] = frame[name].map(rows).astype(np.int32)
            ids = texts[name][ids] if name in texts else ids.astype("str")
            np.save(out / f"{name}.npy", ids.to_numpy().astype("U"))
        frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
        counts = {f"num_{name[:4]}s": int(frame[name].max()) + 1 for name in ("user_id", "item_id")}
        for number, part in enumerate(PARTS):
            rows = frame[frame["part"] == number]
            counts[part] = len(rows)
            for name, ours in NAMES.items():
                np.save(out / f"{part}.{ours}.npy", rows[name].to_numpy())
        return {"counts": counts}

    return run


if __name__ == "__main__":
    answer(start)
