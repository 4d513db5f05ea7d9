import numpy as np
import pytest

from martlet.core import CSR, BundleError, SpecError, rng
from martlet.kernels.codes import half_bytes
from martlet.kernels.topk import topk_dot
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.imports import from_vectors
from martlet.scorers.index import HNSW, IVF, KINDS, ExactInt8, load_index
from martlet.scorers.index.clusters import clustered
from martlet.scorers.storage import read_tensors, write_tensors
from martlet.scorers.table import Table

N, D = 1500, 24


def draw(name, *shape):
    return rng(0, "index", name).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def items():
    return Table.of(draw("items", N, D))


@pytest.fixture(scope="module")
def queries():
    return draw("queries", 30, D)


@pytest.fixture(scope="module")
def ivf(items):
    return IVF.build(items, nlist=25)


def built(kind, items):
    match kind:
        case "exact-int8":
            return ExactInt8.build(items)
        case "hnsw":
            return HNSW.build(items, ef=40)
        case _:
            return KINDS[kind].build(items, 25, 5)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_exact_int8_is_an_exact_search_digit_for_digit(items, queries, precision):
    table = items.to(precision)
    found = ExactInt8.build(table).search(queries, 20)
    assert same(found, topk_dot(queries, np.ascontiguousarray(table.dense().T), 20))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_all_clusters_are_an_exact_search_with_the_tables_own_scores(items, queries, precision):
    table = items.to(precision)
    found = IVF.build(table, nlist=25, nprobe=25).search(queries, 20)
    assert same(found, topk_dot(queries, np.ascontiguousarray(table.dense().T), 20))


def test_equal_scores_come_in_the_total_order(queries):
    table = Table.of(np.repeat(draw("few", 10, D), 4, axis=0))
    found = IVF.build(table, nlist=1).search(queries, 40)
    assert same(found, topk_dot(queries, table.transposed, 40))


def test_more_clusters_find_more(items, queries, ivf):
    exact, _ = topk_dot(queries, items.transposed, 10)
    recall = [
        (ivf.at(nprobe).search(queries, 10)[0][:, :, None] == exact[:, None]).any(1).mean()
        for nprobe in (1, 5, 25)
    ]
    assert recall[0] < recall[1] < recall[2] == 1


def test_a_list_that_the_clusters_leave_short_is_padded(queries, ivf):
    rows, scores = ivf.search(queries, N)
    assert ((rows < 0) == (scores == -np.inf)).all()
    assert (rows[:, -1] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_single_queries(items, queries, kind):
    index = built(kind, items)
    whole = index.search(queries, 10)
    for b in range(len(queries)):
        assert same(index.search(queries[b : b + 1], 10), [part[b : b + 1] for part in whole])
    assert [part.shape for part in index.search(queries[:0], 10)] == [(0, 10), (0, 10)]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_answers_the_same(items, queries, kind, tmp_path):
    index = built(kind, items)
    index.save(tmp_path)
    loaded = load_index(tmp_path, {"kind": kind, **index.config()}, items)
    assert same(loaded.search(queries, 10), index.search(queries, 10))
    assert (loaded.nbytes, loaded.config(), loaded.kind) == (index.nbytes, index.config(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(items, kind, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        built(kind, items).save(tmp_path / name)
    (one,), (two,) = (list((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_bytes_are_those_of_the_file(items, ivf, tmp_path):
    assert ExactInt8.build(items).nbytes == N * (2 * half_bytes(D) + 4)
    ivf.save(tmp_path)
    assert ivf.nbytes == pytest.approx((tmp_path / "index.safetensors").stat().st_size, rel=0.05)
    assert ivf.nlist == 25


def test_a_table_that_needs_no_index_or_bears_none_is_refused(items):
    with pytest.raises(
        SpecError, match=r"index:exact-int8 over an item table stored as int8: .*as it is"
    ):
        ExactInt8.build(items.to("int8"))
    broken = items.dense().copy()
    broken[3, 1] = np.nan
    with pytest.raises(SpecError, match="not finite: no error can be bounded"):
        ExactInt8.build(Table.of(broken))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_refused_by_the_name_of_the_file(kind, tmp_path, items):
    bundle = from_vectors(items.dense())
    scorer = bundle.scorer
    assert isinstance(scorer, Factors)
    bundle.then(scorer.with_index(built(kind, items)), {"transform": kind}).save(tmp_path / "b")
    (path,) = (tmp_path / "b").glob("index.*")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=path.name):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_refused_by_name_though_nobody_hashes_it(items, kind, tmp_path):
    bundle = from_vectors(items.dense())
    scorer = bundle.scorer
    assert isinstance(scorer, Factors)
    bundle.then(scorer.with_index(built(kind, items)), {"transform": kind}).save(tmp_path / "b")
    (path,) = (tmp_path / "b").glob("index.*")
    whole = path.read_bytes()
    # At 25 and 2501 bytes, and some others, faiss itself would read beyond the file's end and
    # crash; at one byte less than the whole it would answer.
    for kept in (0, 10, 25, 80, 1000, 2501, 20_000, len(whole) - 1):
        path.write_bytes(whole[:kept])
        for verify in (True, False):
            with pytest.raises(BundleError, match=f"{path.name} is damaged"):
                Bundle.load(tmp_path / "b", verify=verify)
    path.write_bytes(whole + b"more")
    with pytest.raises(BundleError, match=f"{path.name} is damaged"):
        Bundle.load(tmp_path / "b", verify=False)


@pytest.mark.parametrize("kept", [0, 10, 1000, 20_000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_its_reader_cannot_read_is_refused_by_name(items, kind, kept, tmp_path):
    index = built(kind, items)
    index.save(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BundleError, match=f"{path.name} is damaged"):
        load_index(tmp_path, {"kind": kind, **index.config()}, items)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("exact-int8", {"residual": "much"}, "residual is 'much', expected a number"),
        ("exact-int8", {"residual": -1.0}, "residual is -1.0"),
        ("exact-int8", {"low_norm": True}, "low_norm is True, expected a number"),
        ("ivf", {"nprobe": 0}, "nprobe is 0, expected 1 to 25"),
        ("ivf", {"nprobe": 26}, "nprobe is 26, expected 1 to 25"),
        ("ivf-pq", {"refine": 0}, "refine is 0, expected 1 to"),
        ("hnsw", {"ef": 0}, "ef is 0, expected 1 to"),
        ("hnsw", {"links": True}, "links is True, expected 2 to"),
        ("hnsw", {"entry": N}, "entry is 1500, expected 0 to 1499"),
        ("hnsw", {"top": 100}, "has no level 100 at row"),
        ("hnsw", {"links": 15}, "offsets that are none of 15 links a row"),
        ("ivf", {"kind": "tree"}, "kind 'tree': expected exact-int8 or ivf or ivf-pq or hnsw"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(items, kind, change, words, tmp_path):
    index = built(kind, items)
    index.save(tmp_path)
    with pytest.raises(BundleError, match=words):
        load_index(tmp_path, {"kind": kind, **index.config(), **change}, items)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("exact-int8", r"over 10 x 24 items has arrays .*high uint8\(1500, 16\).*: expected"),
        ("ivf", r"over 10 x 24 items has arrays .*rows int32\(1500,\).*: expected"),
        ("ivf-pq", "over 1500 x 24: expected .* the 10 x 24 item"),
        ("hnsw", r"over 10 x 24 items has arrays .*offsets int64\(1501,\).*: expected"),
    ],
)
def test_an_index_over_other_items_is_refused(items, kind, words, tmp_path):
    index = built(kind, items)
    index.save(tmp_path)
    other = Table.of(items.dense()[:10])
    with pytest.raises(BundleError, match=words):
        load_index(tmp_path, {"kind": kind, **index.config()}, other)


def deepest(kind, items):
    index = built(kind, items)
    if kind == "ivf-pq":
        return KINDS[kind].build(items, 25, 25, refine=200)
    return index.at(index.deepest) if kind != "exact-int8" else index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("allow", [None, np.arange(N) % 3 == 0])
def test_what_may_not_be_shown_is_passed_over(items, queries, kind, allow):
    hidden = CSR.from_rows(
        [np.sort(rng(b, "hidden").choice(N, 40 * (b % 3), replace=False)) for b in range(30)], N
    )
    found = deepest(kind, items).search(queries, 10, hidden, allow)
    assert same(found, topk_dot(queries, items.transposed, 10, hidden, allow))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_nothing(items, queries, kind, monkeypatch):
    index, hidden = built(kind, items), CSR.from_rows([[b, b + 7] for b in range(30)], N)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("MARTLET_THREADS", threads)
        found.append(index.search(queries, 10, hidden, np.arange(N) % 2 == 0))
    assert same(*found)


@pytest.mark.parametrize(
    "storage", ["fp16", "bf16", "int8", "int8-column", "int4:8", "int2:8", "pq:12x4"]
)
@pytest.mark.parametrize("kind", ["ivf", "ivf-pq", "hnsw"])
def test_over_a_quantized_table_the_scores_are_the_tables_own(items, queries, kind, storage):
    table = items.to(storage)
    index = deepest(kind, table)
    exact = topk_dot(queries, np.ascontiguousarray(table.dense().T), 10)
    found = index.search(queries, 10)
    assert (found[0][:, :, None] == exact[0][:, None]).any(1).mean() > 0.99
    at = found[0] == exact[0]
    assert np.array_equal(found[1][at], exact[1][at])


def test_a_graph_over_an_int8_table_has_no_codes_of_its_own(items, queries, tmp_path):
    table = items.to("int8")
    index = HNSW.build(table, ef=40)
    assert index.nbytes == index.graph.offsets.nbytes + index.graph.neighbours.nbytes
    index.save(tmp_path)
    loaded = HNSW.load(tmp_path, index.config(), table)
    assert same(loaded.search(queries, 10), index.search(queries, 10))
    assert loaded.nbytes == index.nbytes


@pytest.mark.parametrize(
    ("kind", "name", "at", "value", "words"),
    [
        ("ivf", "rows", 3, N, "does not hold each of the 1500 items once"),
        ("ivf", "rows", 3, -1, "does not hold each of the 1500 items once"),
        ("ivf", "offsets", 25, N + 1, "offsets that do not rise from 0 to 1500"),
        ("ivf", "offsets", 2, -5, "offsets that do not rise from 0 to 1500"),
        ("hnsw", "offsets", N, 7, "offsets that are none of 16 links a row"),
        ("hnsw", "neighbours", 3, N, "neighbours beyond its 1500 rows or their levels"),
        ("hnsw", "neighbours", 3, -2, "neighbours beyond its 1500 rows or their levels"),
    ],
)
def test_a_place_out_of_range_is_refused(items, kind, name, at, value, words, tmp_path):
    index = built(kind, items)
    index.save(tmp_path)
    path = tmp_path / "index.safetensors"
    arrays = {key: array.copy() for key, array in read_tensors(path).items()}
    arrays[name][at] = value
    write_tensors(path, arrays)
    with pytest.raises(BundleError, match=words):
        load_index(tmp_path, {"kind": kind, **index.config()}, items)


def test_a_neighbour_that_is_not_on_the_level_is_refused(items, tmp_path):
    index = built("hnsw", items)
    index.save(tmp_path)
    path = tmp_path / "index.safetensors"
    arrays = {key: array.copy() for key, array in read_tensors(path).items()}
    size = np.diff(arrays["offsets"])
    low, high = np.argmin(size), np.argmax(size)
    arrays["neighbours"][arrays["offsets"][high] + 2 * 16] = low
    write_tensors(path, arrays)
    with pytest.raises(BundleError, match="beyond its 1500 rows or their levels"):
        load_index(tmp_path, {"kind": "hnsw", **index.config()}, items)


def test_scales_that_do_not_fit_the_clusters_are_refused(items, ivf, tmp_path):
    ivf.save(tmp_path)
    path = tmp_path / "index.safetensors"
    arrays = {key: array.copy() for key, array in read_tensors(path).items()}
    arrays["centre_scale"] = arrays["centre_scale"][:3]
    write_tensors(path, arrays)
    with pytest.raises(BundleError, match="has 3 scales of 25 clusters"):
        IVF.load(tmp_path, ivf.config(), items)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: HNSW.build(t, links=1), "links is 1 and ef 16: expected at least 2 and 1"),
        (lambda t: KINDS["ivf-pq"].build(t, refine=0), "refine is 0: expected at least 1"),
        (lambda t: KINDS["ivf-pq"].build(Table.of(t.dense()[:9])), "over 9 items: expected 16"),
        (lambda t: IVF.build(Table.of(t.dense()[:0])), "index:ivf over no items"),
    ],
)
def test_what_cannot_be_built_is_refused(items, make, words):
    with pytest.raises(SpecError, match=words):
        make(items)


def test_an_index_pays_where_much_is_allowed(items, ivf):
    assert ivf.at(4).pays(1.0)
    assert not ivf.at(4).pays(0.1)
    assert ivf.at(25).pays(0.01)
    hnsw = built("hnsw", items).at(4)
    assert hnsw.pays(0.8)
    assert not hnsw.pays(0.5)


def test_clusters_are_of_near_vectors_and_none_is_left_empty():
    random = rng(3, "clusters")
    centres = 10 * random.normal(size=(12, 5))
    vectors = (centres[np.arange(600) % 12] + 0.1 * random.normal(size=(600, 5))).astype(np.float32)
    means, cluster = clustered(vectors, 12, seed=0)
    assert len(np.unique(cluster)) == 12
    for at in range(12):
        np.testing.assert_allclose(means[at], vectors[cluster == at].mean(0), rtol=1e-4, atol=1e-4)
    spread = np.linalg.norm(vectors - means[cluster], axis=1)
    assert np.median(spread) < 0.5
