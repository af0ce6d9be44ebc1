"""Native log lines are removed from stderr; all other lines stay in order."""

import logging
import os
import threading
from pathlib import Path

from leaf_rt.system.native_stderr import suppress_native_stderr

NATIVE = [
    b"INFO: [environment.cc:36] Creating LiteRT environment with options\n",
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
    b"WARNING: Logging before InitGoogle() is written to STDERR\n",
    b"W0000 00:00:1795440567.817151    9256 inference_runner_litert.cc:1418] Input tensor memory is not aligned\n",
]


def test_native_lines_go_to_logging_and_others_to_stderr(capfd, caplog):
    caplog.set_level(logging.DEBUG, logger="leaf_rt.system.native_stderr")
    os.write(2, b"first\n")
    with suppress_native_stderr():
        for line in NATIVE:
            os.write(2, line)
            os.write(2, b"WARNING:root:mine\n")
    os.write(2, b"last\n")
    assert capfd.readouterr().err == "first\n" + "WARNING:root:mine\n" * 4 + "last\n"
    assert [r.getMessage() for r in caplog.records] == [line.decode().rstrip() for line in NATIVE]


def test_threads_share_the_redirection_and_lose_no_line(capfd):
    def work(number: int) -> None:
        for turn in range(50):
            with suppress_native_stderr():
                os.write(2, NATIVE[0])
                os.write(2, b"%d %d\n" % (number, turn))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"{n} {turn}" for n in range(4) for turn in range(50))


def test_stderr_is_restored_after_an_error(capfd):
    try:
        with suppress_native_stderr():
            os.write(2, b"mine\n")
            raise RuntimeError("broken")
    except RuntimeError:
        os.write(2, b"after\n")
    assert capfd.readouterr().err == "mine\nafter\n"


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_no_descriptor_is_leaked():
    before = descriptors()
    for _ in range(20):
        with suppress_native_stderr():
            pass
    assert descriptors() == before
