from martlet.measure.receipt import Receipt


def receipt(name: str, ndcg: float, p99_ms: float, scoring_mb: float, train_s: float = 1.0):
    return Receipt(
        spec={"spec": name},
        transforms=(),
        quality={"ndcg@10": ndcg},
        cost={
            "p50_ms": p99_ms / 2,
            "p99_ms": p99_ms,
            "scoring_mb": scoring_mb,
            "train_s": train_s,
            "peak_mb": None,
        },
        num_users=10,
        part="valid",
        k=10,
        bundle_id=name,
        data_hash="d",
        seed=0,
        machine={"cpu": "x"},
        threads={"martlet": 2},
        versions={"python": "3"},
    )


THREE = (receipt("small", 0.2, 1, 1), receipt("large", 0.4, 9, 50), receipt("bad", 0.1, 10, 60))
