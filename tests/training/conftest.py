"""The task of the tests of training, and the two networks that learn it."""

import pytest

from tests.quarters import small_cnn, small_task, small_vit


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(scope="module")
def vit():
    return small_vit()


@pytest.fixture(scope="module")
def cnn():
    return small_cnn()
