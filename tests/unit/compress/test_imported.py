"""Every transform over bundles of models that were trained elsewhere."""

import numpy as np
import pytest

import martlet as mt
from martlet.compress.registry import names
from martlet.core import SpecError, rng
from martlet.scorers.bundle import Bundle
from support.networks import mean_encoder

N, D, USERS = 400, 16, 60
WORKS = (
    "low-rank:6",
    "low-rank:error=0.5",
    "low-rank:3,of=network",
    "prune:rows,share=0.4",
    "prune:values,share=0.7",
    "prune:dims",
    "quantize:fp16",
    "quantize:bf16",
    "quantize:int8",
    "quantize:int8,per=column",
    "quantize:int4,group=8",
    "quantize:int2,group=16",
    "index:exact-int8",
    "index:ivf",
    "index:hnsw",
)
REFUSED = {
    "prune:entries": "has no entries",
    "prune:units": "",
    "prune:heads": "",
    "prune:layers": "",
}


def draw(name, *shape):
    return rng(0, "imported", name).normal(size=shape).astype(np.float32)


def imported(kind, folder):
    """A bundle of that kind, with histories."""
    random = rng(0, "imported", "histories")
    vectors = draw("items", N, D)
    given = {"histories": [random.choice(N, 6, replace=False).tolist() for _ in range(USERS)]}
    if kind == "items":
        return mt.from_vectors(vectors, **given)
    if kind == "items and users":
        return mt.from_vectors(vectors, user_vectors=draw("users", USERS, D), **given)
    encoder = folder / "encoder.onnx"
    width = D if kind == "tied encoder" else 10
    encoder.write_bytes(mean_encoder(draw("weight", width, D)))
    if width < D:
        given["input_vectors"] = draw("inputs", N, width)
    return mt.from_onnx(encoder, vectors, **given)


KINDS = ("items", "items and users", "tied encoder", "encoder")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", WORKS)
def test_a_transform_gives_a_bundle_that_answers(text, kind, tmp_path):
    bundle = imported(kind, tmp_path)
    if "network" in text and "encoder" not in kind:
        with pytest.raises(SpecError, match=f"^{text} .*no network"):
            mt.compress(bundle, [text])
        return
    small = mt.compress(bundle, [text])
    assert small.lineage[-1]["transform"] == text
    assert text.startswith("index:") or small.scoring_bytes < bundle.scoring_bytes
    small.save(tmp_path / "small")
    answers = [b.recommend(["3", "20"], k=5) for b in (small, Bundle.load(tmp_path / "small"))]
    assert answers[0] == answers[1]
    assert all(len(one.item_ids) == 5 and not one.fallback for one in answers[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", REFUSED)
def test_what_needs_a_fitted_model_is_refused_by_name(text, kind, tmp_path):
    with pytest.raises(SpecError, match=f"^{text} .*{REFUSED[text]}"):
        mt.compress(imported(kind, tmp_path), [text])


def test_every_transform_is_tried():
    tried = {text.partition(":")[0] for text in (*WORKS, *REFUSED)}
    assert tried == set(names())
