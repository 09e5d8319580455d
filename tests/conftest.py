"""Shared fixtures: the folder of real weights and images, and packaged networks split once."""

import copy
import functools
import os
from pathlib import Path

import pytest

from tests import check_signatures

check_signatures("aptheory")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder named by APTHEORY_ASSETS; tests that need real assets skip without it."""
    folder = os.environ.get("APTHEORY_ASSETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("APTHEORY_ASSETS does not name a folder of real weights and images")
    return Path(folder)


@pytest.fixture(scope="module")
def task():
    """The task of `tests.quarters`, which is imported here: the type checker comes before it."""
    from tests.quarters import small_task

    return small_task()


@pytest.fixture(scope="module")
def vit():
    from tests.quarters import small_vit

    return small_vit()


@pytest.fixture(scope="module")
def cnn():
    from tests.quarters import small_cnn

    return small_cnn()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Split a packaged network once for all tests, which are given copies: loading it again and
    again would take a third of their time. Circles of garbage are looked for as rarely as by the
    command line. What hands the tests to worker processes runs none, and imports nothing."""
    if session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    ):
        return
    from aptheory.cli.application import collect_rarely
    from aptheory.networks import loading

    collect_rarely()

    load, known = loading.load, {}

    @functools.wraps(load)
    def load_once(name_or_module, weights="pretrained", **options):
        packaged = str(name_or_module).startswith("aptheory_") and weights == "pretrained"
        if not packaged or not isinstance(name_or_module, str):
            return load(name_or_module, weights, **options)
        key = (name_or_module, repr(sorted(options.items())))
        if key not in known:
            known[key] = load(name_or_module, weights, **options)
        return copy.deepcopy(known[key])

    loading.load = load_once
