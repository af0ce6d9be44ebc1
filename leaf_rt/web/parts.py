"""What the routes need: the parts of one server, made in its event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaf_rt.web.bounds import Turns
from leaf_rt.web.hub import Hub
from leaf_rt.web.jobs import Jobs
from leaf_rt.web.live import Live
from leaf_rt.web.manager import SourceManager
from leaf_rt.web.options import Limits
from leaf_rt.web.pictures import PictureRecognizer


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one server.

    Attributes:
        hub: Keeps frames and records.
        manager: Changes the sources of the run.
        live: Feeds viewers.
        jobs: Processes clips.
        pictures: Recognizes pictures.
        picture_turns: One picture is recognized at a time.
        info: The answer to ``/v1/info``.
        labels: Class names in the order of the model.
        limits: What clients may ask for at most.
    """

    hub: Hub
    manager: SourceManager
    live: Live
    jobs: Jobs
    pictures: PictureRecognizer
    picture_turns: Turns
    info: dict[str, Any]
    labels: Sequence[str]
    limits: Limits
