"""Name, features and number of cores of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from leaf_rt.system import cpu


def test_name_and_features_come_from_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_CPUINFO", path)
    path.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n")
    assert (cpu.cpu_name(), cpu.cpu_features()) == ("Fast CPU @ 3 GHz", {"fpu", "avx2"})
    path.write_text("processor\t: 0\nFeatures\t: asimd fp\n")
    assert cpu.cpu_features() == {"asimd", "fp"}
    path.unlink()
    assert cpu.cpu_features() == set()
    assert isinstance(cpu.cpu_name(), str)


def test_only_usable_cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert cpu.cpu_count() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cpu.cpu_count() == 1
