import numpy as np
import pytest

from martlet.compress import registry
from martlet.compress.compress import compress
from martlet.compress.index import Index
from martlet.compress.quantize import Quantize
from martlet.core import CSR, Dataset, Interactions, SpecError, rng
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.imports import from_vectors
from martlet.scorers.projections import IALSFold
from martlet.scorers.table import Table


def vectors(n, d=8):
    return rng(0, "compress", n).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def bundle():
    histories = [[i, i + 1, 2 * i] for i in range(1, 50)]
    return from_vectors(vectors(200), histories=histories)


def test_one_bundle_through_two_transforms(bundle):
    steps = []
    small = compress(
        bundle, ["quantize:fp16", Index("ivf")], progress=lambda *step: steps.append(step)
    )
    assert [line["transform"] for line in small.lineage[1:]] == ["quantize:fp16", "index:ivf"]
    assert steps[0] == ("quantize:fp16", 0, 2)
    assert steps[-1] == ("compress", 2, 2)
    assert any(step.startswith("index:ivf: nlist") for step, *_ in steps)
    assert compress(bundle, []) is bundle


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            ["index:ivf", "quantize:int8"],
            "^quantize:int8 after index:ivf: .* put quantize:int8 first",
        ),
        (
            ["index:ivf", "index:exact-int8"],
            "^index:exact-int8 after index:ivf: one index is enough",
        ),
        (
            ["quantize:int8", "quantize:fp16"],
            r"^quantize:fp16 would store no table .*items is int8",
        ),
        (
            ["quantize:int8", "index:exact-int8"],
            "^index:exact-int8 over an item table stored as int8",
        ),
        ([7], "^7 is no transform: expected such as quantize:int8"),
        (["shrink:0.5"], "no transform is called 'shrink': expected one of index, "),
    ],
)
def test_what_cannot_be_is_refused_by_name(bundle, steps, words):
    with pytest.raises(SpecError, match=words):
        compress(bundle, steps)


def test_a_bundle_that_was_indexed_before_takes_no_other_transform(bundle):
    indexed = compress(bundle, ["index:ivf"])
    with pytest.raises(
        SpecError, match=r"^quantize:int8 after ivf: .*put quantize:int8 first, then the index"
    ):
        compress(indexed, ["quantize:int8"])
    with pytest.raises(SpecError, match=r"^index:ivf after ivf: one index is enough"):
        compress(indexed, ["index:ivf"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Index("tree"),
            "index:tree is unknown: expected index:ivf or :exact-int8, :ivf-pq",
        ),
        (lambda: Index(loss=1.0), "loss is 1.0: expected a share from 0 to less than 1"),
        (lambda: Index("hnsw", nprobe=3), "index:hnsw has no nprobe: .* it has links and ef"),
        (lambda: Index(recall=0.0), "recall is 0.0: expected more than 0 and at most 1"),
        (lambda: Index("exact-int8", nprobe=3), "index:exact-int8 has no nprobe"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make, words):
    with pytest.raises(SpecError, match=words):
        make()


@pytest.mark.parametrize(
    ("text", "transform"),
    [
        ("quantize", Quantize("int8")),
        ("quantize:fp16", Quantize("fp16")),
        ("quantize:storage=fp16", Quantize("fp16")),
        (" index:ivf, nprobe=8, nlist=64, recall=0.9 ", Index("ivf", 64, 8, 0.9)),
        ("index:exact-int8", Index("exact-int8")),
    ],
)
def test_text_names_a_transform(text, transform):
    assert registry.parse(text) == transform
    assert registry.parse(transform.label) == transform


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index:ivf,8", "'8' in 'index:ivf,8': expected kind and then, each once, nlist=... or"),
        ("index:ivf,nlist=", "'nlist=' in"),
        ("index:ivf,nlist=4,nlist=4", "'nlist=4' in"),
        ("index:ivf,size=4", "'size=4' in"),
        ("quantize:int8,bits=4", "'bits=4' in .* each once, per=... or group"),
        ("index:ivf,nprobe=many", "nprobe in .* is 'many': expected a number"),
    ],
)
def test_text_that_names_none_is_refused(text, words):
    with pytest.raises(SpecError, match=words):
        registry.parse(text)


def test_every_transform_is_documented():
    for name in registry.names():
        assert (registry.transform_class(name).__doc__ or "").strip()


def test_small_tables_of_neither_items_nor_users_stay_as_they_are(bundle):
    items = Table.of(vectors(200))
    gram = Table.of(items.dense().T @ items.dense())
    scorer = Factors(items, IALSFold(gram, 0.1, 0.1, 1.0))
    small = compress(bundle.then(scorer, {"spec": "toy"}), ["quantize:int8"])
    assert small.lineage[-1]["tables"] == {"items": "int8"}
    assert small.scorer.tables()["projection.gram"] is gram


def test_a_value_beyond_fp16_is_refused_and_int8_holds_it():
    big = from_vectors(vectors(50) * 1e6)
    with pytest.raises(SpecError, match=r"^quantize:fp16 does not fit table items: .*int8 or fp32"):
        compress(big, ["quantize:fp16"])
    assert compress(big, ["quantize:int8"]).scorer.items.storage == "int8"


def clustered(n=4000, d=16, clusters=60):
    random = rng(1, "compress", "clusters")
    centres = random.normal(size=(clusters, d))
    spread = 0.5 * random.normal(size=(n, d))
    return (centres[np.arange(n) % clusters] + spread).astype(np.float32)


def test_the_fewest_clusters_that_reach_the_recall_are_searched():
    items = clustered()
    histories = [[int(i), int(i + 60) % 4000] for i in range(300)]
    bundle = from_vectors(items, histories=histories)
    line = compress(bundle, [Index("ivf", recall=0.95)]).lineage[-1]
    assert line["nlist"] == 63
    assert line["recall@10"] >= 0.95
    assert line["num_queries"] == 300
    assert 1 <= line["nprobe"] < 63
    if line["nprobe"] > 1:
        fewer = Index("ivf", nprobe=line["nprobe"] - 1, recall=0.01)
        assert compress(bundle, [fewer]).lineage[-1]["recall@10"] < 0.95


def test_a_recall_out_of_reach_is_stated():
    histories = [[int(i), 77] for i in range(100)]
    bundle = from_vectors(vectors(2000, 32), histories=histories)
    few = Index("ivf", nlist=40, nprobe=1, recall=1.0)
    with pytest.raises(
        SpecError, match=r"index:ivf,.* with 1 of 40 clusters: expected 1.0; give a"
    ):
        compress(bundle, [few])
    for nlist in (0, 2001):
        with pytest.raises(SpecError, match=f"nlist is {nlist}: expected 1 to 2000"):
            compress(bundle, [Index("ivf", nlist=nlist)])
    with pytest.raises(SpecError, match="nprobe is 9: expected 1 to 5, the number of lists"):
        compress(bundle, [Index("ivf", nlist=5, nprobe=9)])


def test_an_index_is_tuned_on_training_users_of_a_dataset(bundle):
    trained = np.arange(5, dtype=np.int32)
    train = Interactions.sort(trained, trained, num_users=49, num_items=200)
    nothing = train.select(np.zeros(len(train), bool))
    data = Dataset(bundle.users, bundle.items, train, nothing, nothing)
    assert compress(bundle, ["index:ivf"], data).lineage[-1]["num_queries"] == 5
    assert compress(bundle, ["index:ivf"]).lineage[-1]["num_queries"] == 49


def test_where_nobody_is_known_single_items_stand_in():
    found = compress(from_vectors(vectors(100)), ["index:ivf"])
    assert found.lineage[-1]["num_queries"] == 100


def test_an_indexed_bundle_is_no_bundle(bundle):
    indexed = Index("exact-int8").of_index(bundle)
    assert not isinstance(indexed, Bundle)
    assert isinstance(indexed.bundle, Bundle)


def test_few_allowed_items_and_candidates_are_searched_exactly(bundle):
    indexed = compress(bundle, [Index("ivf", nlist=20, nprobe=1, recall=0.01)])
    allow = np.arange(200) % 10 == 0
    for shown in (
        {"allow": allow},
        {"candidates": list(range(0, 200, 7))},
    ):
        queries = bundle.queries(["3", "4"], **shown)
        exact, found = bundle.scorer.topk(queries, 9), indexed.scorer.topk(queries, 9)
        assert np.array_equal(exact.item_row, found.item_row)
    assert isinstance(indexed.histories, CSR)
