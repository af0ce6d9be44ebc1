"""Views of training images: weak, strong and supervised augmentation.

Knows tensors of images. It must not know labels, losses or networks.
"""

__all__ = ["degrade", "randaugment", "transforms", "views"]
