"""Where jobs run: in processes on this machine, on a Ray cluster, or here in this process.

Every engine has one method, ``run(function, queue)``: it takes jobs from the left of a deque until
the deque is empty and nothing is under way, and yields what happens: ``Ended(job)``,
``Died(job, why)`` for one whose process is gone (the caller may append it to the queue again), and
``Tick()`` now and then, so that the caller can look around. Closing the generator, as an exception
or Ctrl-C does, stops what runs.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from aptheory.errors import InputError, reason_of

_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Tick:
    """Nothing ended; time to look around."""


@dataclass(frozen=True)
class Ended:
    """The worker is through with the job, for now."""

    job: Any


@dataclass(frozen=True)
class Died:
    """The process that had the job is gone; ``why`` is what the engine knows about it."""

    job: Any
    why: str


Event = Tick | Ended | Died


@runtime_checkable
class Engine(Protocol):
    @property
    def workers(self) -> int: ...

    def run(self, function: Callable[[Any], Any], queue: deque[Any]) -> Generator[Event]: ...


class Here:
    """One job after the other in this very process: for a debugger, and for tests."""

    workers = 1

    def run(self, function: Callable[[Any], Any], queue: deque[Any]) -> Generator[Event]:
        while queue:
            job = queue.popleft()
            function(job)
            yield Ended(job)


class Processes:
    """Processes on this machine, through joblib's loky.

    Each worker is an executor of its own with a single process: when the process is killed, its
    own job is the only one lost, and it is known which one it was.
    """

    def __init__(self, workers: int | None = None, *, threads: int = 1, device: str = "auto"):
        self.workers = workers or default_workers(threads, device)
        self.threads = threads
        self._gpus = 0 if device == "cpu" else _gpus()

    def run(self, function: Callable[[Any], Any], queue: deque[Any]) -> Generator[Event]:
        from concurrent.futures import FIRST_COMPLETED, Future, wait

        from joblib.externals.loky.process_executor import TerminatedWorkerError

        # loky starts a worker anew when its memory has grown; no job is lost and nobody need know.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        _start_trackers()
        executors: dict[int, Any] = {}  # started when they are first needed
        idle = deque(range(self.workers))
        busy: dict[Future[Any], tuple[int, Any]] = {}
        try:
            while queue or busy:
                while queue and idle:
                    slot, job = idle.popleft(), queue.popleft()
                    try:
                        if slot not in executors:
                            executors[slot] = self._executor(slot)
                        with _uninterrupted():  # which the worker that it starts inherits
                            busy[executors[slot].submit(function, job)] = (slot, job)
                    except (OSError, ValueError) as error:  # no process may be started, or no file
                        idle.append(slot)
                        if slot in executors:
                            executors.pop(slot).shutdown(wait=False, kill_workers=True)
                        yield Died(job, f"not started, {reason_of(error, kind=True)}")
                done, _ = wait(busy, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
                if not done:
                    yield Tick()
                for future in done:
                    slot, job = busy.pop(future)
                    event: Event = Ended(job)
                    try:
                        future.result()
                    except TerminatedWorkerError as error:
                        executors.pop(slot).shutdown(wait=False, kill_workers=True)
                        codes = re.search(r"\{.*?\}", str(error))  # {SIGKILL(-9)}, say
                        why = f"killed or crashed, {codes.group() if codes else error}"
                        event = Died(job, why)
                    idle.append(slot)
                    yield event
        finally:
            for executor in executors.values():
                executor.shutdown(wait=True, kill_workers=True)

    def _executor(self, slot: int) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        environment = thread_environment(self.threads)
        if self._gpus > 1:  # several workers may share a GPU; none sees two
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % self._gpus)
        return ProcessPoolExecutor(
            max_workers=1, initializer=stay_with, initargs=(os.getpid(),), env=environment
        )


def _start_trackers() -> None:
    """Start what clears up after killed processes, joblib's and Python's own: once, before a worker
    does it, and without their warning that they had something to clear up."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as lokys

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker"]))
    try:
        lokys.ensure_running()
        resource_tracker.ensure_running()  # which lets Ctrl-C through, if it was kept waiting
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C waiting, here and in the processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stay_with(parent: int) -> None:
    """End this worker when its parent is gone: nobody would collect what it makes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Cluster:
    """A Ray cluster: the one at ``address``, or one that Ray starts on this machine.

    The results folder must be on a file system that all nodes share. A job takes ``threads``
    CPUs and, where the study's device is a GPU, one; with more ``workers`` than GPUs its share.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        threads: int = 1,
        device: str = "auto",
    ) -> None:
        try:
            import ray
        except ImportError:
            raise InputError(
                "the ray engine needs Ray; install it with: pip install 'aptheory[ray]'"
            ) from None
        self._own = not ray.is_initialized()
        if self._own:
            _knock(address)
            local: dict[str, Any] = {
                "num_cpus": (workers or default_workers(threads, device)) * threads
            }
            try:
                ray.init(
                    address=address,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    configure_logging=False,
                    **({} if address else local),
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                where = f"the Ray cluster at {address}" if address else "a local Ray"
                raise InputError(f"cannot reach {where}: {error}") from None
        self.threads = threads
        self._limit = workers
        gpus = ray.cluster_resources().get("GPU", 0)
        self._gpus = 0.0
        if device.startswith("cuda") or (device == "auto" and gpus):
            self._gpus = min(1.0, gpus / workers) if workers and gpus else 1.0

    @property
    def workers(self) -> int:
        """How many jobs fit on the nodes that are alive now; at least one."""
        import ray

        if not ray.is_initialized():
            return self._limit or 1
        resources = ray.cluster_resources()
        fit = int(resources.get("CPU", 1) // self.threads)
        if self._gpus:
            fit = min(fit, int(resources.get("GPU", 0) / self._gpus + 1e-6))
        return max(1, min(fit, self._limit or fit))

    def run(self, function: Callable[[Any], Any], queue: deque[Any]) -> Generator[Event]:
        import ray

        remote = ray.remote(num_cpus=self.threads, num_gpus=self._gpus, max_retries=0)(_call)
        busy: dict[Any, Any] = {}
        try:
            while queue or busy:
                while queue and len(busy) < self.workers + 1:  # one waits, so that no node does
                    job = queue.popleft()
                    busy[remote.remote(function, job)] = job
                done, _ = ray.wait(list(busy), timeout=_TICK_SECONDS)
                if not done:
                    yield Tick()
                for reference in done:
                    job = busy.pop(reference)
                    event: Event = Ended(job)
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause if error.cause is not None else error from None
                    except ray.exceptions.RayError as error:
                        event = Died(job, f"{type(error).__name__}: {reason_of(error)}")
                    yield event
        finally:
            for reference in busy:
                ray.cancel(reference, force=True)
            if self._own:
                ray.shutdown()


def _knock(address: str | None) -> None:
    """Refuse an address where nobody listens; Ray itself would try for many minutes."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
    except OSError as error:
        raise InputError(
            f"cannot reach the Ray cluster at {address}: {error.strerror or error}; "
            "start it with `ray start --head` and give the address that it prints"
        ) from None


def _call(function: Callable[[Any], Any], job: Any) -> Any:
    return function(job)  # Ray makes remote functions of plain functions only


def default_workers(threads: int, device: str) -> int:
    """As many as the cores that this process may use allow; with GPUs, one each."""
    if device != "cpu" and _gpus():
        return _gpus()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // threads)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that hold every numerical library of a worker to so many threads."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    return {f"{name}_NUM_THREADS": str(threads) for name in names} | {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8"
    }


def make_engine(
    engine: str | Engine,
    *,
    workers: int | None = None,
    threads: int = 1,
    device: str = "auto",
    address: str | None = None,
) -> Engine:
    """The engine of that name: ``"processes"``, ``"ray"`` or ``"here"``; an engine stays itself.

    Raises:
        InputError: another name, an ``address`` for an engine that has none, fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected 1 or more")
    if not isinstance(engine, str):
        return engine
    if address is not None and engine != "ray":
        raise InputError(f"engine {engine!r} has no address; use engine 'ray' or drop the address")
    if engine == "processes":
        return Processes(workers, threads=threads, device=device)
    if engine == "ray":
        return Cluster(address, workers=workers, threads=threads, device=device)
    if engine == "here":
        return Here()
    raise InputError(f"engine is {engine!r}; expected 'processes', 'ray' or 'here'")
