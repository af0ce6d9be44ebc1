"""Write a fused module as ONNX: one file, dynamic batch, checked, the same bytes for the same checkpoint.

Knows torch's exporter and ONNX; must not know back ends. Opset 20 is what every runtime of the last two years reads.
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

OPSET = 20
EXPORTER = 1  # part of the key of every cached engine: raise it when the graph changes
# Sums over many places, exponentials and norms overflow or lose their small terms in float16.
IN_FLOAT32 = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool", "AveragePool", "Softmax", "LogSoftmax", "Exp", "Log",
     "Pow", "Sqrt", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
)  # fmt: skip
# Operators that choose what to compute by looking at the data: none may stand in the graph.
ROUTING = frozenset(("If", "Loop", "Scan", "NonZero", "SequenceAt", "Unique"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint ready for export.

    Attributes:
        model: As trained, in eval mode.
        meta: What the checkpoint says of itself.
        preparation: What the graph does to the pixels.
        weights_sha256: Of all weights and buffers.
    """

    model: FaceModel
    meta: CheckpointMeta
    preparation: Preparation
    weights_sha256: str


def load(checkpoint: Path, *, flip: bool = True, net_side: int | None = None) -> Loaded:
    """Open a run or checkpoint.

    Args:
        checkpoint: A run's folder or its .pt file.
        flip: Average over the mirror image inside the graph.
        net_side: Side at which the network sees the faces, px; None takes the checkpoint's.

    Raises:
        NotFound, ModelError: See ``train.loop.checkpoint.load_model``.
    """
    model, meta = load_model(checkpoint)
    geometry = meta.geometry
    preparation = Preparation(
        geometry.side, geometry.color, net_side or geometry.net_side, meta.mean, meta.std, flip
    )  # fmt: skip
    return Loaded(model, meta, preparation, _digest(model))


def export(loaded: Loaded, out: Path, faces: U8, precision: str = "fp32", licence: str = "not stated") -> Path:
    """Write NAME.onnx (or NAME-fp16.onnx) and its description.

    Args:
        loaded: The checkpoint.
        out: NAME.onnx, where the fp32 model is or will be.
        faces: (N, S, S, 3) uint8 BGR, real crops; for fp16 the range of the activations is checked on them.
        precision: "fp32" or "fp16"; the description of the second names the first, which must have been written.
        licence: Of the weights.

    Returns:
        The file that was written.

    Raises:
        ModelError: The graph would not be static, or float16 does not hold its activations.
        OutputError, NoPermission: See ``leaf_rt.system.files.write_whole``.
    """
    fused = fuse(loaded.model, loaded.preparation.net_side)
    if precision == "fp16":
        # Every so many, for stored crops of a clip resemble their neighbours.
        trial = Deployed(fused, loaded.preparation).prepare(torch.from_numpy(faces[:: max(1, len(faces) // 32)]))
        largest_activation(fused, trial)
        fused = to_half(fused)
    geometry, preparation = loaded.meta.geometry, loaded.preparation
    deployed = Deployed(fused, preparation).eval()
    proto = to_onnx(deployed, preparation.side)
    if precision == "fp16":
        keep_in_float32(proto)
    facts = {
        "labels": list(loaded.meta.labels), "side": preparation.side, "margin": geometry.margin,
        "color": preparation.color, "net_side": preparation.net_side, "mean": list(preparation.mean),
        "std": list(preparation.std), "flip": preparation.flip, "precision": precision,
        "weights_sha256": loaded.weights_sha256, "exporter": EXPORTER,
    }  # fmt: skip
    path = out if precision == "fp32" else variant_path(out, precision)
    write_onnx(proto, path, facts)
    parent = "" if precision == "fp32" else sha256_of(out)
    spec = replace(spec_of(loaded, precision, licence), sha256=sha256_of(path), parent=parent)
    save_spec(spec, path)
    return path


def spec_of(loaded: Loaded, precision: str = "fp32", licence: str = "not stated") -> ModelSpec:
    """The description of a checkpoint's model file, as yet without its hash and its parent."""
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
    """Trace a module of uint8 crops (N, side, side, 3), N free, into ONNX."""
    example = torch.zeros(3, side, side, 3, dtype=torch.uint8)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # The exporter warns of its own internals and of packages that this project has no use for.
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
        log.setLevel(level)
    if program is None:
        raise ModelError("export: the exporter gave no graph; this version of torch is not supported")
    proto: onnx.ModelProto = program.model_proto
    return proto


def write_onnx(proto: onnx.ModelProto, path: Path, facts: dict[str, Any]) -> None:
    """Clean, check and write a graph.

    Args:
        proto: Changed in place: what names files and lines of this machine is taken out.
        path: The .onnx file.
        facts: Written as metadata under "leaf_rt.KEY", in JSON.

    Raises:
        ModelError: A batch norm is left, the graph is not static, or ONNX's checker refuses it.
        OutputError, NoPermission: See ``leaf_rt.system.files.write_whole``.
    """
    _strip(proto)
    proto.producer_name, proto.producer_version = "leaf-rt", str(EXPORTER)
    del proto.metadata_props[:]
    helper.set_model_props(proto, {f"leaf_rt.{k}": json.dumps(v) for k, v in sorted(facts.items())})
    ops = {node.op_type for node in proto.graph.node}
    wrong = sorted(ops & (ROUTING | {"BatchNormalization", "Dropout"}))
    if wrong:
        raise ModelError(f"export: the graph holds {', '.join(wrong)}; a static, fused graph has none of it")
    batches = {v.name: v.type.tensor_type.shape.dim[0] for v in (*proto.graph.input, *proto.graph.output)}
    fixed = sorted(name for name, dim in batches.items() if not dim.dim_param)
    if fixed:
        raise ModelError(f"export: the batch of {', '.join(fixed)} is fixed; some part of the network asks for len(x)")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ModelError(f"export: ONNX's checker refuses the graph ({str(e).splitlines()[0]})") from e
    content = proto.SerializeToString(deterministic=True)
    write_whole(path, lambda f: f.write(content), parents=True)


def keep_in_float32(proto: onnx.ModelProto) -> None:
    """Put casts round every operator of ``IN_FLOAT32`` that works on float16, in place."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.input)}
    kinds |= {t.name: t.data_type for t in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        halves = [i for i, name in enumerate(node.input) if kinds.get(name) == TensorProto.FLOAT16]
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
    """Remove comments and traces of the machine that exported."""
    graph = proto.graph
    holders: Iterable[Any] = (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for holder in holders:
        holder.doc_string = ""
        if holder.metadata_props:
            del holder.metadata_props[:]
    graph.name = "leaf_rt"
    proto.doc_string = ""
    del proto.functions[:]  # the exporter leaves definitions that no node calls


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
