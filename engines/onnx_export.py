"""Export of a checkpoint to ONNX: one file with a dynamic batch, checked, reproducible to the byte.

Knows PyTorch's exporter and ONNX; must not know back ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from engines.deployed_model import Deployed, Preparation, fuse, largest_activation, to_half
from leaf_rt.errors import ModelError
from leaf_rt.models.spec import ModelSpec, save_spec, sha256_of, variant_path
from leaf_rt.system.files import write_whole
from leaf_rt.types import U8
from train.loop.checkpoint import CheckpointMeta, load_model
from train.models.face_model import FaceModel

OPSET = 20  # all supported runtimes read it
EXPORTER = 1  # stored in the file, so cached engines depend on it; increase it when the graph changes
# In float16 long sums, exponentials and norms overflow or lose small terms.
IN_FLOAT32 = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool", "AveragePool", "Softmax", "LogSoftmax", "Exp", "Log",
     "Pow", "Sqrt", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
)  # fmt: skip
# Operators with data-dependent control flow or shapes; the graph must not contain any.
ROUTING = frozenset(("If", "Loop", "Scan", "NonZero", "SequenceAt", "Unique"))


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint that is ready for export.

    Attributes:
        model: The trained model, in eval mode, not fused.
        meta: Metadata of the checkpoint.
        preparation: Preprocessing that becomes part of the graph.
        weights_sha256: Hash of all weights and buffers.
    """

    model: FaceModel
    meta: CheckpointMeta
    preparation: Preparation
    weights_sha256: str


def load_checkpoint(checkpoint: Path, *, flip: bool = True, net_side: int | None = None) -> LoadedCheckpoint:
    """Load the model of a run or checkpoint.

    Args:
        checkpoint: Folder of a run, or a .pt file.
        flip: Average the outputs over each face and its mirror image, inside the graph.
        net_side: Input size of the network, px; None takes that of the checkpoint.

    Raises:
        NotFound, ModelError: See ``train.loop.checkpoint.load_model``.
    """
    model, meta = load_model(checkpoint)
    geometry = meta.geometry
    side = net_side or geometry.net_side
    preparation = Preparation(geometry.side, geometry.color, side, meta.mean, meta.std, flip)
    return LoadedCheckpoint(model, meta, preparation, _hash_weights(model))


def export_onnx(
    loaded: LoadedCheckpoint, out: Path, faces: U8, precision: str = "fp32", licence: str = "not stated"
) -> Path:
    """Write NAME.onnx or NAME-fp16.onnx, and its description.

    Args:
        loaded: The checkpoint.
        out: Path of the fp32 model, NAME.onnx, for both precisions.
        faces: (N, S, S, 3) uint8 BGR, real face crops; for fp16 the range of the activations is checked on them.
        precision: "fp32" or "fp16". For fp16 the fp32 file must exist: the description refers to it.
        licence: Licence of the weights.

    Returns:
        The file that was written.

    Raises:
        ModelError: The graph is not static, or its activations are too large for float16.
        OutputError, NoPermission: See ``leaf_rt.system.files.write_whole``.
    """
    fused = fuse(loaded.model, loaded.preparation.net_side)
    if precision == "fp16":
        # Evenly spaced, because neighbouring crops of a clip look alike.
        sample = torch.from_numpy(faces[:: max(1, len(faces) // 32)])
        largest_activation(fused, Deployed(fused, loaded.preparation).prepare(sample))
        fused = to_half(fused)
    geometry, preparation = loaded.meta.geometry, loaded.preparation
    deployed = Deployed(fused, preparation).eval()
    proto = to_onnx(deployed, preparation.side)
    if precision == "fp16":
        keep_in_float32(proto)
    metadata = {
        "labels": list(loaded.meta.labels), "side": preparation.side, "margin": geometry.margin,
        "color": preparation.color, "net_side": preparation.net_side, "mean": list(preparation.mean),
        "std": list(preparation.std), "flip": preparation.flip, "precision": precision,
        "weights_sha256": loaded.weights_sha256, "exporter": EXPORTER,
    }  # fmt: skip
    path = out if precision == "fp32" else variant_path(out, precision)
    write_onnx(proto, path, metadata)
    parent = "" if precision == "fp32" else sha256_of(out)
    spec = replace(spec_of(loaded, precision, licence), sha256=sha256_of(path), parent=parent)
    save_spec(spec, path)
    return path


def spec_of(loaded: LoadedCheckpoint, precision: str = "fp32", licence: str = "not stated") -> ModelSpec:
    """The description of the model file of a checkpoint, without hash and parent."""
    geometry, preparation = loaded.meta.geometry, loaded.preparation
    return ModelSpec(
        labels=loaded.meta.labels,
        side=preparation.side,
        margin=geometry.margin,
        color=preparation.color,
        net_side=preparation.net_side,
        mean=preparation.mean,
        std=preparation.std,
        flip=preparation.flip,
        feature_dim=int(loaded.model.classifier.in_features),
        precision=precision,
        opset=OPSET,
        sha256="",
        training=loaded.meta.training,
        metrics={},
        licence=licence,
    )


def to_onnx(deployed: nn.Module, side: int) -> onnx.ModelProto:
    """Convert a module to ONNX.

    Args:
        deployed: Takes (N, side, side, 3) uint8 and returns two tensors; see ``Deployed``.
        side: Size of the crops, px.

    Returns:
        The graph, with a dynamic batch size N.
    """
    example = torch.zeros(3, side, side, 3, dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # The exporter warns about its own internals and about optional packages.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deployed,
                (example,),
                input_names=["faces"],
                output_names=["probs", "features"],
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise ModelError("export: PyTorch's exporter returned no graph; install another version of torch")
    proto: onnx.ModelProto = program.model_proto
    return proto


def write_onnx(proto: onnx.ModelProto, path: Path, metadata: dict[str, Any]) -> None:
    """Check a graph and write it.

    Args:
        proto: The graph. File names and line numbers of this machine are removed in place.
        path: The .onnx file.
        metadata: Values that JSON can hold; stored in the file as "leaf_rt.KEY".

    Raises:
        ModelError: The graph contains a batch norm, is not static, or fails ONNX's checker.
        OutputError, NoPermission: See ``leaf_rt.system.files.write_whole``.
    """
    _strip(proto)
    proto.producer_name, proto.producer_version = "leaf-rt", str(EXPORTER)
    del proto.metadata_props[:]
    helper.set_model_props(proto, {f"leaf_rt.{k}": json.dumps(v) for k, v in sorted(metadata.items())})
    operators = {node.op_type for node in proto.graph.node}
    forbidden = sorted(operators & (ROUTING | {"BatchNormalization", "Dropout"}))
    if forbidden:
        raise ModelError(
            f"export: the graph contains {', '.join(forbidden)}, which a static, fused graph must not contain"
        )
    batches = {v.name: v.type.tensor_type.shape.dim[0] for v in (*proto.graph.input, *proto.graph.output)}
    fixed = sorted(name for name, dim in batches.items() if not dim.dim_param)
    if fixed:
        raise ModelError(
            f"export: the batch of {', '.join(fixed)} is fixed; the network must not read the batch size with len(x)"
        )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ModelError(f"export: the graph fails ONNX's checker ({str(e).splitlines()[0]})") from e
    content = proto.SerializeToString(deterministic=True)
    write_whole(path, lambda f: f.write(content), parents=True)


def keep_in_float32(proto: onnx.ModelProto) -> None:
    """Wrap every float16 operator of ``IN_FLOAT32`` in casts to and from float32, in place."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.input)}
    types |= {t.name: t.data_type for t in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        halves = [i for i, name in enumerate(node.input) if types.get(name) == TensorProto.FLOAT16]
        if node.op_type not in IN_FLOAT32 or not halves:
            nodes.append(node)
            continue
        for i in halves:
            wide = f"{node.name}_in{i}_float32"
            nodes.append(helper.make_node("Cast", [node.input[i]], [wide], name=wide, to=TensorProto.FLOAT))
            node.input[i] = wide
        narrow, wide = node.output[0], f"{node.name}_out_float32"
        node.output[0] = wide
        nodes.append(node)
        nodes.append(helper.make_node("Cast", [wide], [narrow], name=f"{wide}_cast", to=TensorProto.FLOAT16))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]


def _strip(proto: onnx.ModelProto) -> None:
    """Remove comments, source locations and unused definitions."""
    graph = proto.graph
    holders: Iterable[Any] = (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for holder in holders:
        holder.doc_string = ""
        if holder.metadata_props:
            del holder.metadata_props[:]
    graph.name = "leaf_rt"
    proto.doc_string = ""
    del proto.functions[:]  # definitions that no node calls


def _hash_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
