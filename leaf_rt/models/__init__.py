"""The bundled model files and the description of a model file.

Knows JSON and hashes. It must not know a runtime that executes models.
"""

__all__ = ["calibration", "detectors", "landmarks", "quality", "spec"]
