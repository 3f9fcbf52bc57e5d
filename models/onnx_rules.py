"""Which ONNX files a bundle may hold: a list of what is taken, everything else is refused.

Knows nothing of manifests, and runs nothing. It needs the library `onnx`: bundles are made by a process that has it
anyway, and the service asks in the process that proves a bundle (service/repository/proving_process.py).

Taken are graphs of standard operators that turn numbers into numbers: no control flow, nothing random, no texts,
sequences or optional values, no functions, no data outside the file. A value's size may follow from the image's size
and from constants, never from what the image shows: a network that was proved on one image then asks for no more
memory on another of that size.
"""

import math
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from models.bundle_files import BundleError, shown

IR_VERSIONS = range(3, 15)
OPSETS = range(9, 29)
MAX_NODES = 100_000
_DOMAINS = ("", "ai.onnx")  # two spellings of the standard's own
_BY_VALUE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
    Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf
    IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu
    Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"""
_LAYOUT = """Concat Constant ConstantOfShape CumSum DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND
    NonZero OneHot Pad Range Reshape Resize ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile
    TopK Transpose Trilu Unsqueeze Upsample"""
_WINDOWS_AND_SUMS = """
    ArgMax ArgMin Attention AveragePool BatchNormalization Col2Im Conv ConvTranspose DeformConv Einsum
    Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample GroupNormalization Hardmax InstanceNormalization LRN
    LayerNormalization LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization RMSNormalization
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    RotaryEmbedding Softmax"""
_FEW_BITS = "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear"
OPERATORS = frozenset(" ".join([_BY_VALUE, _LAYOUT, _WINDOWS_AND_SUMS, _FEW_BITS]).split())
# Inputs whose values, not only their shapes, decide which shape the answer has.
_SHAPING = {
    "Col2Im": (1, 2), "ConstantOfShape": (0,), "Expand": (1,), "NonZero": (0,), "OneHot": (1,), "Pad": (1, 3),
    "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,),
    "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,), "Upsample": (1,),
} | {name: (1,) for name in OPERATORS if name.startswith("Reduce")}  # fmt: skip
_BITS = {
    TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64, TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.INT16: 16, TensorProto.UINT16: 16, TensorProto.INT32: 32,
    TensorProto.UINT32: 32, TensorProto.INT64: 64, TensorProto.UINT64: 64, TensorProto.BOOL: 8,
    TensorProto.INT4: 4, TensorProto.UINT4: 4,
}  # fmt: skip
_ATTRIBUTES = (
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR, AttributeProto.FLOATS,
    AttributeProto.INTS, AttributeProto.STRINGS, AttributeProto.TENSORS,
)  # fmt: skip
_TEXT_VALUES = ("value_string", "value_strings", "sparse_value")


def check(network: bytes) -> ModelProto:
    """The graph of a file that obeys every rule here. Raises BundleError, which says what is not taken."""
    try:
        model = ModelProto.FromString(network)
    except DecodeError:
        raise _refused("it is no ONNX file, or a damaged one") from None
    if model.ir_version not in IR_VERSIONS:
        raise _refused(f"IR version {model.ir_version}; {IR_VERSIONS.start} to {IR_VERSIONS.stop - 1} are taken")
    domains = [opset.domain for opset in model.opset_import]
    if foreign := [domain for domain in domains if domain not in _DOMAINS]:
        raise _refused(f"operators of the domain {shown(foreign[0])!r}; only the standard's own are taken")
    if len(domains) != 1 or model.opset_import[0].version not in OPSETS:
        raise _refused(f"it has to name one operator set, of version {OPSETS.start} to {OPSETS.stop - 1}")
    if model.functions or model.training_info:
        raise _refused("functions or training of its own; only a graph is taken")
    _check_graph(model.graph)
    return model


def _check_graph(graph: GraphProto) -> None:
    if not 0 < len(graph.node) <= MAX_NODES:
        raise _refused(f"{len(graph.node)} nodes; 1 to {MAX_NODES} are taken")
    if graph.sparse_initializer:
        raise _refused("sparse weights")
    _check_tensors(graph.initializer)
    weights = {tensor.name for tensor in graph.initializer}
    shown_by_image = {end.name for end in graph.input} - weights  # values that depend on it
    known = weights | shown_by_image | {""}  # "": an input that is left out
    for node in graph.node:
        _check_node(node)
        if not known.issuperset(node.input):
            raise _refused(f"{_named(node)}: a value is used before it is made")
        made = [name for name in node.output if name]
        if len(made) > len(set(made) - known):
            raise _refused(f"{_named(node)}: two values have one name")
        known.update(made)
        for i in _SHAPING.get(node.op_type, ()):
            if i < len(node.input) and node.input[i] in shown_by_image:
                raise _refused(f"{_named(node)}: a shape that depends on what an image shows, not only on its size")
        if node.op_type not in ("Shape", "Size") and not shown_by_image.isdisjoint(node.input):
            shown_by_image.update(made)


def _check_node(node: NodeProto) -> None:
    if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
        raise _refused(f"{_named(node)}: not among the operators that are taken (models/onnx_rules.py)")
    for attribute in node.attribute:
        if attribute.type not in _ATTRIBUTES or attribute.name in _TEXT_VALUES or attribute.ref_attr_name:
            raise _refused(f"{_named(node)}: {shown(attribute.name)!r} is a graph, a text, or sparse")
        _check_tensors(attribute.tensors)
        if attribute.type == AttributeProto.TENSOR:
            _check_tensors([attribute.t])


def _check_tensors(tensors: Iterable[TensorProto]) -> None:
    """Every tensor lies in the file, and has as many values as its shape says."""
    for tensor in tensors:
        name = shown(tensor.name) or "a constant"
        if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
            raise _refused(f"the values of {name} are in another file; all have to be in this one")
        if (bits := _BITS.get(tensor.data_type)) is None or tensor.HasField("segment"):
            raise _refused(f"{name} is of a type that is not taken")
        if any(side < 0 for side in tensor.dims) or len(tensor.dims) > 16:
            raise _refused(f"{name} has no sound shape")
        count = math.prod(tensor.dims)
        held = len(tensor.raw_data) * 8 if tensor.HasField("raw_data") else _listed(tensor) * bits
        if not count * bits <= held < count * bits + 8:
            raise _refused(f"{name} has other values than its shape {list(tensor.dims)} says")


def _listed(tensor: TensorProto) -> int:
    """How many values a tensor lists, where it does not hold them raw."""
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return 2 * len(tensor.int32_data)
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return sum(map(len, lists))


def _named(node: NodeProto) -> str:
    domain = f"{shown(node.domain)}." if node.domain else ""
    return f"{domain}{shown(node.op_type)}"


def _refused(why: str) -> BundleError:
    return BundleError(f"encoder.onnx: {why}")
