"""Shared fixtures: the folder of real weights and images, where somebody has one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder named by APTHEORY_ASSETS; tests that need real assets skip without it."""
    folder = os.environ.get("APTHEORY_ASSETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("APTHEORY_ASSETS does not name a folder of real weights and images")
    return Path(folder)
