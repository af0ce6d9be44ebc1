"""``open_backend``: loads a model with a named back end or with the best one for this machine."""

from __future__ import annotations

from pathlib import Path

from leaf_rt.backends.base import Backend, BackendConfig, ProgressCallback, silent
from leaf_rt.backends.registry import NAMES, PRECISIONS, find_backend
from leaf_rt.backends.selection import select_backend
from leaf_rt.backends.variants import Variant
from leaf_rt.errors import BackendError
from leaf_rt.models.spec import load_spec


def open_backend(
    model: Path,
    name: str = "auto",
    threads: int = 0,
    *,
    precision: str = "",
    notify: ProgressCallback = silent,
    build: bool = True,
) -> Backend:
    """Load a model.

    Args:
        model: The model file; its JSON description must be beside it.
        name: One of ``NAMES``. Only "auto" falls back to another back end; a named back end must work.
        threads: CPU threads for inference; 0 means ``default_threads()``.
        precision: One of ``PRECISIONS``, or "". With "auto", "" means the fastest file of the model; with a named
            back end, the precision of the file itself. "int8" uses the quantized file beside an fp32 model, whose
            accuracy is at most half a point lower but whose single answers may differ.
        notify: Called with one sentence about each slow step or problem.
        build: Whether a TensorRT engine may be built, which takes minutes.

    Raises:
        BackendError: The name is unknown, or the back end cannot run here.
        ModelError, NotFound: See ``load_spec``.

    Example:
        >>> backend = open_backend(DEFAULT_MODEL)  # doctest: +SKIP
        >>> backend.infer(faces).probs.shape  # doctest: +SKIP
        (4, 8)
    """
    if name not in NAMES:
        raise BackendError(f"--backend {name}: unknown; choose one of {', '.join(NAMES)}")
    if precision and precision not in PRECISIONS:
        raise BackendError(f"--precision {precision}: unknown; choose one of {', '.join(PRECISIONS)}")
    if threads < 0:
        raise BackendError(f"--threads {threads}: wanted 0 (automatic) or more")
    spec = load_spec(model)
    if name == "auto":
        return select_backend(model, spec, BackendConfig(threads, precision=precision, notify=notify, build=build))
    config = BackendConfig(threads, "requested with --backend", notify=notify, build=build)
    return Variant(find_backend(name), model, spec, precision).open(config)
