"""What tests share: the pictures and clips of ../shared/media, where they are at hand."""

from pathlib import Path

import pytest

MEDIA = Path(__file__).parents[2] / "shared" / "media"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what uses the fixture ``media`` where there is none."""
    for item in items:
        if "media" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skipif(not MEDIA.is_dir(), reason=f"needs the pictures and clips of {MEDIA}"))


@pytest.fixture
def media() -> Path:
    return MEDIA
