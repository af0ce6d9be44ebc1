"""What a run writes and shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """What is written and shown. None leaves it to the kind of source: who has an end gives all three results.

    Attributes:
        out: Folder for the results; None: beside the file.
        save_video: Whether to write the annotated video.
        jsonl: One file of records for all sources, "-" for standard output; "" for no records at all.
        csv: One CSV file for all sources, "-" for standard output.
        events: One file of expressions with start, end and dwell for all sources, "-" for standard output.
        parquet: One Parquet file for all sources.
        plot: The timeline's file, for a single source; Path("") for none.
        show: Whether to open a window.
        blur: Hide faces in every picture that is written or shown.
    """

    out: Path | None = None
    save_video: bool | None = None
    jsonl: str | None = None
    csv: Path | None = None
    events: Path | None = None
    parquet: Path | None = None
    plot: Path | None = None
    show: bool = False
    blur: bool = False

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files that options name: which option, and where; while Parquet is written it has a second one."""
        jsonl = Path(self.jsonl) if self.jsonl else None
        part = self.parquet.with_name(self.parquet.name + ".part") if self.parquet and self.parquet.name else None
        plot = None if self.plot == Path() else self.plot
        named = {"--jsonl": jsonl, "--csv": self.csv, "--events": self.events, "--plot": plot}
        named |= {"--parquet": self.parquet, "--parquet, while written,": part}
        return [(option, path) for option, path in named.items() if path is not None and str(path) != "-"]

    def endings(self, has_end: bool) -> dict[str, str]:
        """The results that each source has for itself, by their kind: how their names end.

        Args:
            has_end: Whether the source comes to an end, as files do.
        """
        by_default = has_end or self.out is not None
        wanted = {
            "video": (".mp4", has_end if self.save_video is None else self.save_video),
            "records": (".jsonl", self.jsonl is None and by_default),
            "timeline": (".png", self.plot is None and by_default),
        }
        return {kind: ending for kind, (ending, asked) in wanted.items() if asked}

    @property
    def on_stdout(self) -> bool:
        """Whether standard output carries results, so that words for people must go elsewhere."""
        return "-" in (self.jsonl, str(self.csv), str(self.events))
