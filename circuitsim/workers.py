"""Work for many processes, of this machine (joblib's loky) or of many (Dask). Results are returned as they finish.

Every worker is sent what all tasks share once, then item after item. A task whose worker was killed is repeated by
another one. Data travels in memory, pickled by loky or Dask, so use only a scheduler that you trust.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from queue import Empty
from typing import Any, TypeVar

from circuitsim.errors import BackendUnavailable, SettingsError, whole

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
Submit = Callable[[Item], "Future[Result]"]

MOST_WORKERS = 1024
PATIENCE = 5.0  # seconds in which a scheduler must answer, and have a worker
_INSTALL = "pip install 'circuitsim[parallel]'"
_RETURN = 60.0  # seconds in which killed workers of a scheduler may come back
_MOST_LOSSES = 3  # of workers one after another, without any result between them
_IN_FLIGHT = 256  # tasks that a scheduler knows at a time
_ALONE = threading.Lock()  # one task at a time: a Dask worker may have several threads
_TASK: list[Callable[[Any], Any]] = []  # of a process that is a worker: what it does with each item


def run(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Mapping[int, Item],
    workers: int = 1,
    scheduler: str | None = None,
) -> Generator[tuple[int, Result], None, None]:
    """Keys of `items` with `function(shared, item)`, as they finish: in order with one worker, otherwise in any.

    workers    number of processes on this machine; 1: this process
    scheduler  the address of a Dask scheduler, tcp://host:8786, whose workers are used instead

    What the function raises is raised here. Close the iterator (contextlib.closing) to end all work at once.
    Raises SettingsError, BackendUnavailable (package missing, scheduler unreachable, workers killed repeatedly).
    """
    check(workers, scheduler)
    left = dict(items)
    if workers == 1 and scheduler is None:
        yield from ((k, function(shared, item)) for k, item in left.items())
        return
    from concurrent.futures.process import BrokenProcessPool

    losses = 0
    while left:
        count = min(workers, len(left))
        if scheduler is None:
            team = _local(function, shared, count)
        else:
            team = _remote(function, shared, scheduler, _RETURN if losses else PATIENCE)
        try:
            with team as submit:
                room = 2 * count if scheduler is None else _IN_FLIGHT
                for k, result in _as_done(submit, tuple(left.items()), room):
                    del left[k]
                    losses = 0
                    yield k, result
        except (BrokenProcessPool, CancelledError):
            losses += 1
            if losses == _MOST_LOSSES:
                raise BackendUnavailable(
                    f"workers were killed {losses} times, one after another, without a result: is there enough memory? "
                    "use fewer --workers"
                ) from None


def check(workers: int, scheduler: str | None) -> None:
    """Raise SettingsError for an impossible request, BackendUnavailable for a missing package."""
    if not 1 <= whole("workers", workers) <= MOST_WORKERS:
        raise SettingsError(f"workers must be from 1 to {MOST_WORKERS}, found {workers}")
    if workers > 1 and scheduler is not None:
        raise SettingsError("--workers and --scheduler exclude each other: a scheduler has its own workers; choose one")
    try:
        if scheduler is not None:
            import distributed  # noqa: F401
        elif workers > 1:
            import joblib  # noqa: F401
    except ImportError as error:
        name, option = ("joblib", "workers") if scheduler is None else ("Dask (distributed)", "scheduler")
        raise BackendUnavailable(f"--{option} needs {name}, {error.name} is missing: {_INSTALL}") from None


def unwanted() -> bool:
    """Inside a task: whether it was cancelled. Only Dask lets it run on; processes of this machine are killed."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker
    from distributed.worker import thread_state

    try:
        tasks = get_worker().state.tasks
    except ValueError:  # no worker of Dask
        return False
    return thread_state.key not in tasks or tasks[thread_state.key].state == "cancelled"


def _as_done(
    submit: Submit[Item, Result], items: Sequence[tuple[int, Item]], room: int
) -> Iterator[tuple[int, Result]]:
    """Results as they come, with at most `room` tasks under way; failures after the results that came with them."""
    queue = iter(items)
    running = {submit(item): k for k, item in islice(queue, room)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=_failed):
            result = future.result()
            running |= {submit(item): k for k, item in islice(queue, 1)}
            yield running.pop(future), result


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


# -- this machine ------------------------------------------------------------------------------------------------------


@contextmanager
def _local(function: Callable[[Shared, Item], Result], shared: Shared, workers: int) -> Iterator[Submit[Item, Result]]:
    """Processes of this machine. They are killed if the block does not run to its end."""
    from joblib.externals.loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(function, shared, os.getpid()))
    done = False
    try:
        with ThreadPoolExecutor(1) as apart:  # an interrupt, raised in the main thread, never cuts a start in half
            apart.submit(_shield).result()
            yield lambda item: apart.submit(executor.submit, _next, item).result()
        done = True
    finally:
        if not done:
            # Its thread ends with a KeyError over tasks that it has not taken up when it is to kill the workers.
            with suppress(Empty):
                while True:
                    executor._work_ids.get(block=False)
        executor.shutdown(wait=True, kill_workers=not done)


def _shield() -> None:
    """Processes that this thread starts ignore Ctrl-C, which a terminal sends to all; this process ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()  # else the first worker's start does it, and unblocks SIGINT then (Python 3.11)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _begin(function: Callable[[Shared, Item], Result], shared: Shared, parent: int) -> None:
    """What a worker does first."""
    _TASK[:] = [partial(function, shared)]
    for name in ("SIGTERM", "SIGHUP"):  # a worker that is ended is one that is killed, whatever it is doing
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: os._exit(1))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process soon after the one that started it, however that one ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _next(item: Any) -> Any:
    return _TASK[0](item)


# -- many machines -----------------------------------------------------------------------------------------------------


@contextmanager
def _remote(
    function: Callable[[Shared, Item], Result], shared: Shared, address: str, patience: float
) -> Iterator[Submit[Item, Result]]:
    """The workers of a Dask scheduler; tasks not yet begun are cancelled if the block ends early."""
    import asyncio

    from distributed import Client
    from distributed.scheduler import KilledWorker

    with ThreadPoolExecutor(1) as apart:  # in a notebook an event loop runs here already
        try:
            apart.submit(asyncio.run, _identity(address)).result()
        except Exception as error:  # what answers may be anything
            raise BackendUnavailable(
                f"no Dask scheduler answers at {address} ({_first_line(error)}); start one (dask scheduler), or "
                "correct --scheduler tcp://HOST:PORT"
            ) from None
    client = Client(address, timeout=PATIENCE, set_as_default=False)
    try:
        _check_team(client, address, patience)
        [there] = client.scatter([shared], broadcast=True, hash=False)
        executor = client.get_executor(pure=False)
        try:
            yield partial(executor.submit, _alone, function, there)
        except KilledWorker:
            raise BackendUnavailable(
                f"workers of {address} died repeatedly on the same task: is there enough memory? see their logs"
            ) from None
        finally:
            executor.shutdown(wait=False)
    finally:
        client.close()


async def _identity(address: str) -> Any:
    """What a scheduler says of itself. A Client that finds none cannot be closed in order."""
    import asyncio

    from distributed import Security, rpc

    keys = Security().get_connection_args("client")  # as Dask's configuration says
    async with rpc(address, timeout=PATIENCE, connection_args=keys) as there:
        return await asyncio.wait_for(there.identity(), PATIENCE)


def _check_team(client: Any, address: str, patience: float) -> None:
    """Raise BackendUnavailable unless there are workers within so many seconds, all with the same circuitsim."""
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError:
        raise BackendUnavailable(
            f"the scheduler at {address} has no workers; start some: dask worker {address} --nthreads 1"
        ) from None
    own = _version()
    try:
        versions = client.run(_version)
    except Exception as error:  # whatever its import raises there
        raise BackendUnavailable(
            f"the workers of {address} have no circuitsim that can be imported ({_first_line(error)}); install "
            f"version {own} on them"
        ) from None
    for worker, version in versions.items():
        if version != own:
            raise BackendUnavailable(
                f"worker {worker} has circuitsim {version}, this is {own}; install the same version"
            )


def _version() -> str:
    return str(sys.modules["circuitsim"].__version__)


def _alone(function: Callable[[Shared, Item], Result], shared: Shared, item: Item) -> Result:
    with _ALONE:
        return function(shared, item)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
