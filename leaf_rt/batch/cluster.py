"""Workers of a Ray cluster. Ray chooses the machine of each file and tries it again if its worker is lost.

The only module that imports Ray. All machines must have this leaf-rt, and see the files and the folder of the results
under the same paths; only records go there, and only outcomes come back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from leaf_rt.batch.job import TRIES, Clip, Job, Outcome, Ready, Runner, SetUpFailed, WorkerLost
from leaf_rt.errors import BackendError, ConnectionLost, first_line, install_hint
from leaf_rt.system.result_file import remove_partial
from leaf_rt.system.signals import StopSignal, stop_on_signals

LOCAL = "local"
_POLL = 0.2  # s; how soon a stop is noticed
_REACH = 10.0  # s until an address answers; Ray itself would wait for minutes
_QUEUED = 2  # files per CPU that Ray knows of, so that no machine waits
_LONGEST = 24  # characters; Ray's sockets lie in its folder, and the path of a socket is limited
_STORE = 80 << 20  # bytes of shared memory of a local cluster; outcomes are small
# Ray reports usage to its makers, unless this is set where a cluster is started.
_SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_PROMPT_ENABLED": "0"}
# A cluster without reports still asks for the metadata of clouds, to tell which one it runs in. On this machine alone,
# nothing outside is needed: whatever asks by HTTP finds a closed port.
_NOWHERE = "http://127.0.0.1:9"
_ALONE = {
    "RAY_USAGE_STATS_REPORT_URL": _NOWHERE,
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
    "RAY_AUTH_MODE": "token",
}


def on_ray(address: str, jobs: int | None = None) -> Runner:
    """Make a runner on a Ray cluster; see ``Runner``.

    Args:
        address: "local" starts one on this machine; "auto", HOST:PORT or ray://HOST:PORT joins one.
        jobs: Files at the same time; None takes all CPUs.

    Raises:
        BackendError: Ray is not installed.
        ConnectionLost: Nobody listens at the address.
    """
    os.environ.update(_SILENT)  # before Ray loads, which reads them once
    if address == LOCAL:
        # A token that only this cluster knows, so nobody else can give it work. It would else lie in the user's home.
        os.environ.update(_ALONE, RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
    except ImportError as e:
        raise BackendError(f"--ray {address}: Ray is not installed; {install_hint('ray')}") from e
    _reach(address)

    def run(job: Job, clips: Sequence[Clip], ready: Callable[[Ready], None], stop: StopSignal) -> Iterator[Outcome]:
        with _connected(ray, address, jobs), stop_on_signals(stop):  # Ray has set a handler for SIGTERM
            yield from _Cluster(ray, job, clips, jobs).run(ready, stop)

    return run


def _reach(address: str) -> None:
    """Check that somebody listens at HOST:PORT.

    Raises:
        ConnectionLost: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except (OSError, OverflowError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise ConnectionLost(
            f"--ray {address}: nobody listens there ({reason}); take the address that `ray start` printed"
        ) from e


class _Cluster:
    def __init__(self, ray: Any, job: Job, clips: Sequence[Clip], jobs: int | None) -> None:
        self._ray, self._jobs = ray, jobs
        self._job = ray.put(job)
        # Errors of a worker come back as outcomes. What is left are machines that cannot work, and lost processes.
        remote = ray.remote(num_cpus=1, max_retries=TRIES - 1, retry_exceptions=[SetUpFailed])
        self._load, self._process = remote(_load), remote(_process)
        self._clips = iter(clips)
        self._running: dict[Any, Clip] = {}  # by the reference of its task

    def run(self, ready: Callable[[Ready], None], stop: StopSignal) -> Iterator[Outcome]:
        """Process all files.

        Raises:
            SetUpFailed, WorkerLost: No worker can work.
            ConnectionLost: The cluster is gone.
        """
        try:
            first = self._load.remote(self._job)
            while not stop.is_set() and not self._ray.wait([first], timeout=_POLL)[0]:
                pass
            if stop.is_set():
                return
            ready(self._answer(first))
            self._submit()
            while self._running and not stop.is_set():
                done, _ = self._ray.wait([*self._running], timeout=_POLL)
                outcomes = [self._outcome(reference) for reference in done]
                self._submit()
                yield from outcomes
        finally:
            self._cancel()

    def _submit(self) -> None:
        """Let Ray know the next files. All at once would fill its memory, if there are many."""
        most = self._jobs or max(_QUEUED * int(self._ray.cluster_resources().get("CPU", 1)), 1)
        while len(self._running) < most and (clip := next(self._clips, None)) is not None:
            self._running[self._process.remote(self._job, clip)] = clip

    def _outcome(self, reference: Any) -> Outcome:
        clip = self._running.pop(reference)
        try:
            found = self._answer(reference)
        except (SetUpFailed, WorkerLost) as e:
            remove_partial(Path(clip.result))
            return Outcome(clip, "failed", str(e), e.exit_code)
        assert isinstance(found, Outcome)
        return found

    def _answer(self, reference: Any) -> Any:
        """What a task returned.

        Raises:
            SetUpFailed, WorkerLost, ConnectionLost: It returned nothing.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except SetUpFailed as e:  # Ray's own error is of this class too, and tells a traceback
            cause = getattr(e, "cause", e)
            raise SetUpFailed(str(cause), cause.exit_code) from e
        except (errors.LocalRayletDiedError, errors.RaySystemError) as e:
            raise ConnectionLost(f"--ray: the connection to the cluster is lost ({first_line(e)})") from e
        except errors.RayTaskError as e:
            cause = getattr(e, "cause", e)
            raise SetUpFailed(f"a machine of the cluster cannot work ({type(cause).__name__}: {cause})", 10) from e
        except errors.RayError as e:
            lost = f"its worker was lost {TRIES} times ({type(e).__name__}); is the file harmful, or memory too short?"
            raise WorkerLost(lost) from e

    def _cancel(self) -> None:
        """End what runs, without another try, and remove what it has not finished."""
        for reference in self._running:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.cancel(reference, force=True)
        if self._running:
            with contextlib.suppress(Exception):
                self._ray.wait([*self._running], num_returns=len(self._running), timeout=2.0)
        for clip in self._running.values():
            remove_partial(Path(clip.result))
        self._running.clear()


@contextlib.contextmanager
def _connected(ray: Any, address: str, jobs: int | None) -> Iterator[None]:
    """Start a cluster, or join one.

    Raises:
        ConnectionLost: There is none at the address.
    """
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with contextlib.ExitStack() as stack:
        try:
            if address == LOCAL:
                short = len(tempfile.gettempdir()) <= _LONGEST
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(
                        prefix="leaf-ray-", dir=None if short else "/tmp", ignore_cleanup_errors=True
                    )
                )
                ray.init(
                    address=LOCAL,
                    num_cpus=jobs,
                    _node_ip_address="127.0.0.1",
                    include_dashboard=False,
                    object_store_memory=_STORE,
                    _temp_dir=folder,
                    **common,
                )
            else:
                ray.init(address=address, runtime_env={"env_vars": _SILENT}, **common)
        except Exception as e:  # Ray raises many classes, none of them documented
            raise ConnectionLost(
                f"--ray {address}: no cluster answers ({first_line(e)}); see `ray status` there, and set "
                "RAY_AUTH_MODE=token if it wants its token"
            ) from e
        stack.callback(ray.shutdown)
        yield


@functools.lru_cache(maxsize=1)  # the processes of Ray live longer than a task, and so does the model in them
def _worker(job: Job) -> Any:
    from leaf_rt.batch.worker import Worker

    return Worker(job)


def _load(job: Job) -> Ready:
    """Load the model on any machine, and say what was loaded."""
    ready: Ready = _worker(job).ready
    return ready


def _process(job: Job, clip: Clip) -> Outcome:
    """Process one file on any machine."""
    outcome: Outcome = _worker(job).process(clip)
    return outcome
