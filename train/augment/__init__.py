"""Views of training pictures: weak, strong and supervised augmentation.

Knows tensors of pictures. It must not know labels, losses or networks.
"""

__all__ = ["randaugment", "transforms", "views"]
