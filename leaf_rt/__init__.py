"""Real-time facial-expression recognition. ``__all__`` is the Python API; every other module is internal.

A name is imported when it is first used, so ``import leaf_rt`` costs nothing. Start with ``leaf_rt.Recognizer``.
"""

from leaf_rt.system import telemetry as _telemetry

_telemetry.switch_off()  # before any library loads

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from engines.entry import ExportConfig as ExportConfig
    from engines.entry import export as export
    from leaf_rt.errors import LeafError as LeafError
    from leaf_rt.recognizer.faces import Face as Face
    from leaf_rt.recognizer.faces import Faces as Faces
    from leaf_rt.recognizer.faces import FrameResult as FrameResult
    from leaf_rt.recognizer.picture import Plot as Plot
    from leaf_rt.recognizer.recognizer import Recognizer as Recognizer
    from leaf_rt.recognizer.stream import Stream as Stream
    from leaf_rt.recognizer.video import VideoResult as VideoResult
    from train.entry import evaluate as evaluate
    from train.entry import train as train

    __version__: str

__all__ = [
    "ExportConfig",
    "Face",
    "Faces",
    "FrameResult",
    "LeafError",
    "Plot",
    "Recognizer",
    "Stream",
    "VideoResult",
    "__version__",
    "evaluate",
    "export",
    "train",
]

_HOMES = {
    "ExportConfig": "engines.entry",
    "Face": "leaf_rt.recognizer.faces",
    "Faces": "leaf_rt.recognizer.faces",
    "FrameResult": "leaf_rt.recognizer.faces",
    "LeafError": "leaf_rt.errors",
    "Plot": "leaf_rt.recognizer.picture",
    "Recognizer": "leaf_rt.recognizer.recognizer",
    "Stream": "leaf_rt.recognizer.stream",
    "VideoResult": "leaf_rt.recognizer.video",
    "evaluate": "train.entry",
    "export": "engines.entry",
    "train": "train.entry",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("leaf-rt")
    if name not in _HOMES:
        raise AttributeError(f"module 'leaf_rt' has no attribute {name!r}")
    import importlib

    try:
        value: object = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as e:
        from leaf_rt.errors import BackendError, install_hint

        raise BackendError(f"leaf_rt.{name} needs {e.name}; {install_hint('train')}") from e
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
