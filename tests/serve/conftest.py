import pytest

from support.servers import Server, awkward


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A saved bundle with ids that a path cannot hold bare."""
    target = tmp_path_factory.mktemp("serve") / "bundle"
    awkward().save(target)
    return target


@pytest.fixture(scope="session")
def bundle(folder):
    from martlet.scorers.bundle import Bundle

    return Bundle.load(folder)


@pytest.fixture(scope="session")
def server(folder):
    """One process that answers all tests that leave it as it was."""
    with Server(folder) as running:
        yield running
    assert (running.process.returncode, running.errors) == (0, "")
