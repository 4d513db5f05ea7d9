import numpy as np
import pytest
import torch

from martlet.core import DataError, SpecError, rng
from martlet.train.embeddings import Embedding, size_of, tables_of
from martlet.train.loop import train
from martlet.train.plan import Plan
from martlet.train.run import Run
from martlet.train.sharing import MixedDimension, QuotientRemainder, embedding_of
from unit.train.test_embeddings import Clicks, assert_same

KINDS = ("quotient", "mixed")
ROWS = np.array([[3, 99, 3], [0, 17, 50]])


def made(sharing, num_rows=100, dim=16, **options):
    return embedding_of(sharing, num_rows, dim, **({"rate": 0.1, "init_scale": 0.5} | options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", ["fp32", "int8"])
def test_what_is_exported_looks_up_the_same(kind, storage):
    table = made(kind, storage=storage)
    found = table(torch.from_numpy(ROWS))
    assert found.shape == (2, 3, 16)
    np.testing.assert_allclose(
        table.export().rows(ROWS.ravel()), found.detach().numpy().reshape(6, 16), atol=1e-6
    )


def test_sizes():
    assert size_of(made("none")) == 1600
    assert size_of(made("quotient")) == 16 * (4 + 25)
    assert size_of(made("mixed")) == 6 * 16 + 19 * 4 + 75 * 1 + (4 + 1) * 16
    assert made("mixed").starts.tolist() == [0, 6, 25, 100]
    assert size_of(made("quotient", collisions=10)) == 16 * 20


@pytest.mark.parametrize("kind", KINDS)
def test_first_values_have_the_spread_asked_for_and_parts_differ(kind):
    table = made(kind, num_rows=4000, dim=32, init_scale=0.3)
    assert table(np.arange(4000)).std().item() == pytest.approx(0.3, rel=0.25)
    seeds = [part.seed for part in tables_of(table).values()]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_composition(kind):
    """A small step against a linear loss changes it by minus the rate times its squared slope."""
    table = made(kind, optimizer="sgd", rate=1e-3, seed=3)
    weight = torch.from_numpy(rng(0, "w").normal(size=(2, 3, 16)).astype(np.float32))
    dense = torch.optim.SGD(list(table.parameters()) or [torch.zeros(1)], lr=1e-3)
    before = (table(ROWS) * weight).sum()
    before.backward()
    square = sum(part.square_norm() for part in tables_of(table).values())
    square += sum(float((p.grad**2).sum()) for p in table.parameters())
    dense.step()
    for part in tables_of(table).values():
        part.step()
    with torch.no_grad():
        after = (table(ROWS) * weight).sum()
    assert (before - after).item() == pytest.approx(1e-3 * square, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained_kept_and_resumed(kind, tmp_path):
    def task():
        found = Clicks()
        found.network.table = made(kind, 60, 4, rate=0.3, storage="fp16")
        return found

    plan = Plan(epochs=6, rate=0.05, clip=5.0)
    whole = task()
    report = train(whole, plan, seed=1, key="k")
    assert report.epochs[-1].loss < 0.95 * report.epochs[0].loss

    def stop(step, done, total):
        if done == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task(), plan, seed=1, key="k", run=Run(tmp_path, every_steps=4, progress=stop))
    again = task()
    train(again, plan, seed=1, key="k", run=Run(tmp_path, resume=True))
    assert_same(whole.network.state_dict(), again.network.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_each_part_has_files_of_its_own(kind, tmp_path):
    in_files, in_memory = made(kind, file=tmp_path), made(kind)
    assert torch.equal(in_files(ROWS), in_memory(ROWS))
    assert len(list(tmp_path.rglob("values"))) == len(tables_of(in_files))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outside", [-1, 100])
def test_rows_outside_are_refused(kind, outside):
    with pytest.raises(DataError, match="outside the table"):
        made(kind)(np.array([3, outside]))


def test_kinds_and_options_that_make_no_sense():
    assert isinstance(made("none"), Embedding)
    assert isinstance(made("quotient"), QuotientRemainder)
    assert isinstance(made("mixed"), MixedDimension)
    with pytest.raises(SpecError, match="sharing is 'half': expected one of none, quotient, mixed"):
        made("half")
    with pytest.raises(SpecError, match="collisions is 0: expected"):
        made("quotient", collisions=0)
    with pytest.raises(SpecError, match="blocks is 4 for 20 rows: expected 2 or more"):
        made("mixed", num_rows=20, blocks=4)
