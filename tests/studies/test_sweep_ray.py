"""A study on a real Ray of two nodes on this machine, whose nodes and workers are killed."""

import os
import random
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from aptheory.errors import InputError
from aptheory.studies.engines import Cluster, Here
from aptheory.studies.store import Store
from aptheory.studies.sweep import execute, status
from tests.studies import sweep_fakes as fakes

# Ray leaves sockets to its exit handlers and calls interfaces of its own that are deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def two_nodes():
    """A Ray cluster of two nodes with one CPU each; yields it, and takes it down."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes()
    try:
        for keyword in ({"include_dashboard": False}, {}):
            _start(nodes, **_NODE, **keyword)
        nodes.wait_for_nodes()
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def _start(nodes, **options):
    """Ray gives a node 30 seconds to come up, which a busy machine may miss: try three times."""
    for _ in range(2):
        try:
            return nodes.add_node(**options)
        except Exception as error:
            if "timed out" not in str(error):
                raise
    return nodes.add_node(**options)


@pytest.fixture
def nodes():
    pytest.importorskip("ray")
    with two_nodes() as made:
        yield made


def expected(folder, **size):
    execute(
        fakes.plan(seconds=0.0, **size),
        folder,
        engine=Here(),
        trainer=fakes.trainer,
        progress=False,
    )
    return (folder / "accuracy.csv").read_bytes()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cluster_gives_the_same_table_while_things_die(nodes, tmp_path):
    size = {"tasks": 6, "layers": 8}
    whole, out = tmp_path / "whole", tmp_path / "out"
    table = expected(whole, **size)
    out.mkdir()
    store, chance, killed = Store(out), random.Random(0), []
    over = threading.Event()

    def disturb():
        """Kill the process behind a claim at random moments, and once the second node."""
        while not over.wait(chance.uniform(0.5, 3.0)):
            held = list(store.running().values())
            if len(killed) == 4:
                nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
                killed.append("node")
            elif held and len(killed) < 9:
                about = chance.choice(held)
                if kill(about["pid"]):
                    killed.append(about["pid"])

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    try:
        execute(
            fakes.plan(seconds=0.3, folder=out, **size),
            out,
            engine=Cluster(nodes.address),
            trainer=fakes.trainer,
            progress=False,
        )
    finally:
        over.set()
        thread.join()
    assert "node" in killed
    assert len(killed) > 5
    told = status(out)
    assert (told.left, len(told.failed), told.damaged) == (0, 0, [])
    assert (out / "accuracy.csv").read_bytes() == table
    trained = fakes.trainings(out)
    assert len(trained) - len(set(trained)) <= len(killed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_nodes_work_and_a_deadly_batch_fails_alone(nodes, tmp_path):
    plan = fakes.plan(seconds=0.2, folder=tmp_path, tasks=4, layers=4)
    execute(plan, tmp_path, engine=Cluster(nodes.address), trainer=fakes.deadly, progress=False)
    told = status(tmp_path)
    assert (told.done, len(told.failed)) == (4 * 4 * 4 - 4, 4)
    assert "died 3 times" in told.text()
    assert len(list(tmp_path.glob("trained.*"))) >= 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_at_the_address_is_said_in_a_sentence(address):
    pytest.importorskip("ray")
    start = time.monotonic()
    with pytest.raises(InputError, match="cannot reach the Ray cluster at"):
        Cluster(address)
    assert time.monotonic() - start < 30
