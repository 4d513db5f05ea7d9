import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slowed down by a second thread, most where the cores are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield
