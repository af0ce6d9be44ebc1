"""Data sets: layouts, cropped faces, splits.

Knows files and faces. It must not know networks or losses.
"""

__all__ = ["crop_cache", "cropper", "dataset", "formats", "image_store", "splits", "tables", "unlabelled"]
