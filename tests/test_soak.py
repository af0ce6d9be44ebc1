"""What lives for days, in short: nothing grows, nothing leaks, the counters add up exactly."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from soak import soak

MINUTES = os.environ.get("LEAF_SOAK_MINUTES")


def test_five_seconds_of_two_cameras_one_of_them_shaky(tmp_path: Path) -> None:
    before = threading.active_count()
    result = soak(tmp_path, seconds=5.0, every=1.5, away=0.5)
    assert result["balanced"]
    assert result["failures"] == []
    assert result["sources"]["steady"]["reconnects"] == 0
    assert result["sources"]["shaky"]["reconnects"] >= 1
    assert result["sources"]["steady"]["captured"] > 60
    assert result["records"] > 0
    assert threading.active_count() <= before + 1


@pytest.mark.slow
@pytest.mark.skipif(MINUTES is None, reason="takes as long as LEAF_SOAK_MINUTES says; 30 is the measure")
def test_half_an_hour_of_two_cameras(tmp_path: Path) -> None:
    minutes = float(MINUTES or 30)
    result = soak(tmp_path, seconds=minutes * 60, every=60.0)
    assert result["balanced"]
    assert result["failures"] == []
    assert result["megabytes_per_10_minutes"] < 1.0
    assert result["threads"][1] <= result["threads"][0] + 1
    assert result["descriptors"][1] <= result["descriptors"][0] + 2
    assert result["sources"]["shaky"]["reconnects"] >= minutes - 1
