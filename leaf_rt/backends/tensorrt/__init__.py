"""The TensorRT and TensorRT-RTX back ends: builder, CUDA calls, runner and engine."""
