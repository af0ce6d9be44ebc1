"""How long a frame may wait for frames of other sources, so that one call serves them together.

Pure: times are arguments. The bound holds from the moment a frame came, so one that waited while the loop was busy is
not held up again; and nobody waits for a source that has nothing to give before then.
"""

from __future__ import annotations

from collections.abc import Sequence

from leaf_rt.stream.stats import SourceStats


def deadline(arrived: float, wait: float, sources: Sequence[SourceStats]) -> float:
    """Until when frames are gathered, s on the run's clock.

    Args:
        arrived: When the oldest frame that waits came, s.
        wait: s that it may wait; never longer than one frame time of the fastest live source, where that is known.
        sources: All sources of the run.
    """
    live = [source for source in sources if source.info.is_live and source.state == "open"]
    return arrived + min([wait, *(source.interval or 0.0 for source in live)])


def worth_waiting(source: SourceStats, until: float) -> bool:
    """Whether a source without a frame may well have one by ``until``, s; not one that is slow, lost or over."""
    if source.state != "open":
        return False
    if not source.info.is_live or source.last_frame is None or source.interval is None:
        return True
    return source.last_frame + source.interval <= until
