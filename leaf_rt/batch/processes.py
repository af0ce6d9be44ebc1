"""Worker processes of this machine. They share nothing: each has a pipe to the parent, and no lock.

``concurrent.futures`` cannot replace this: when one of its processes is killed, all files that wait are lost with it,
and nobody knows which file it was. Here a process may die at any moment: the parent knows its file, starts another
process, and tries the file again. A stop is the same, without the second try.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from leaf_rt.batch.job import TRIES, Clip, Job, Outcome, Ready, Runner, SetUpFailed, WorkerLost
from leaf_rt.system.result_file import remove_partial
from leaf_rt.system.signals import StopSignal

_POLL = 0.2  # s; how soon a stop is noticed
_SIGNALS = {signal.SIGINT, signal.SIGHUP}  # a terminal sends these to the workers too, but the parent decides
_context = multiprocessing.get_context("spawn")  # a copy by fork would inherit threads and locks in any state


def on_processes(count: int) -> Runner:
    """Make a runner with ``count`` worker processes; see ``Runner``."""

    def run(job: Job, clips: Sequence[Clip], ready: Callable[[Ready], None], stop: StopSignal) -> Iterator[Outcome]:
        pool = _Pool(job, clips, count)
        try:
            yield from pool.run(ready, stop)
        finally:
            pool.close()

    return run


class _Process:
    """One worker process, and the file that it has in hand."""

    def __init__(self, job: Job) -> None:
        self.clip: Clip | None = None
        self.is_ready = False
        self.pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_work, args=(job, theirs), name="leaf-rt batch", daemon=True)
        resource_tracker.ensure_running()  # or ``start`` would begin it, which unblocks SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the new process inherits this
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, clip: Clip) -> None:
        """Hand over a file. If the process is dead, its end is noticed by the next ``wait``."""
        self.clip = clip
        with contextlib.suppress(OSError):
            self.pipe.send(clip)

    def end(self) -> str:
        """End the process in any state, and return how it ended."""
        self._process.terminate()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode or 0
        self.pipe.close()
        self._process.close()
        return f"by signal {-code}" if code < 0 else f"with code {code}"


class _Pool:
    def __init__(self, job: Job, clips: Sequence[Clip], count: int) -> None:
        self._job, self._count = job, count
        self._waiting = deque(clips)
        self._tries: Counter[str] = Counter()
        self._processes: list[_Process] = []
        self._starts_lost = 0  # processes that ended before they were ready, one after the other

    def run(self, ready: Callable[[Ready], None], stop: StopSignal) -> Iterator[Outcome]:
        """Process all files.

        Raises:
            SetUpFailed, WorkerLost: No worker can work here.
        """
        told = False
        while not stop.is_set() and (self._waiting or any(process.clip for process in self._processes)):
            self._start(1 if not told else self._count)
            outcomes: list[Outcome] = []
            for pipe in wait([process.pipe for process in self._processes], _POLL):
                process = next(each for each in self._processes if each.pipe is pipe)
                try:
                    message = process.pipe.recv()
                except (EOFError, OSError):
                    outcomes += self._lose(process)
                    continue
                if isinstance(message, SetUpFailed):
                    raise message
                if isinstance(message, Ready):
                    process.is_ready, self._starts_lost = True, 0
                    if not told:  # the first one measures the back ends; the others read its choice
                        ready(message)
                        told = True
                else:
                    process.clip = None
                    outcomes.append(message)
            for process in self._processes:
                if process.is_ready and process.clip is None and self._waiting:
                    process.give(self._waiting.popleft())
            yield from outcomes  # after the processes have got work: who takes them may write to a slow disk

    def close(self) -> None:
        """End all processes, and remove what they have not finished."""
        for process in self._processes:
            process.end()
            if process.clip is not None:
                remove_partial(Path(process.clip.result))
        self._processes.clear()

    def _start(self, most: int) -> None:
        """Start processes while there is work for them."""
        busy = sum(process.clip is not None for process in self._processes)
        while len(self._processes) < min(most, busy + len(self._waiting)):
            self._processes.append(_Process(self._job))

    def _lose(self, process: _Process) -> list[Outcome]:
        """Forget a process that has ended. Its file waits for another one, or has failed."""
        self._processes.remove(process)
        how, clip = process.end(), process.clip
        if not process.is_ready:
            self._starts_lost += 1
            if self._starts_lost >= TRIES:
                raise WorkerLost(f"worker processes end {how} before they can work; is memory too short for --jobs?")
        if clip is None:
            return []
        remove_partial(Path(clip.result))
        self._tries[clip.result] += 1
        if self._tries[clip.result] < TRIES:
            self._waiting.append(clip)
            return []
        reason = f"its worker process ended {how}, {TRIES} times; is the file harmful, or memory too short for --jobs?"
        return [Outcome(clip, "failed", reason, WorkerLost.exit_code)]


def _work(job: Job, pipe: Connection) -> None:
    """The life of a worker process: load the model, then answer for one file after the other."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from leaf_rt.batch.worker import Worker

    try:
        worker = Worker(job)
    except SetUpFailed as e:
        pipe.send(e)
        return
    with worker, contextlib.suppress(EOFError, OSError):  # the parent is gone
        pipe.send(worker.ready)
        while True:
            pipe.send(worker.process(pipe.recv()))


def _end_with_parent() -> None:
    """End this process as soon as the parent is gone, however that happened."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
