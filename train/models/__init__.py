"""Networks: backbones, mixture of experts, heads.

Knows tensors. It must not know data, losses or the loop.
"""

__all__ = ["backbones", "bundled", "face_model", "mobilefacenet", "moe", "weights"]
