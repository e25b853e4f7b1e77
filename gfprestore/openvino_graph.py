"""Record what a torch network does as an OpenVINO graph, without running it.

The network is called once with a `GraphTensor` in place of a tensor: torch hands every operation on it to
`__torch_function__`, which adds the same operation to the graph. Tracing proper would run the network, which for
GFP-GAN takes longer than compiling it; what depends only on weights is computed by torch on the way and becomes a
constant. A network that does more than is known here raises `UnknownOperationError`; the engine then traces it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnknownOperationError(Exception):
    """The network does something that this module has no graph operation for."""


class GraphTensor:
    """A value in the graph that stands for a tensor of static shape."""

    dtype = torch.float32
    device = torch.device("cpu")
    is_cuda = is_mps = False

    def __init__(self, output: Any) -> None:
        self.output = output if isinstance(output, openvino.Output) else output.output(0)

    @property
    def shape(self) -> torch.Size:
        """Static shape."""
        return torch.Size(self.output.get_shape())

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> GraphTensor:
        """Add an operation that torch was asked for to the graph."""
        rule = RULES.get(function)
        if rule is None:
            raise UnknownOperationError(f"{function!r} has no rule")
        return rule(*args, **(kwargs or {}))

    def narrow(self, axis: int, start: int, length: int) -> Line:
        """One line of this tensor, to be changed in place."""
        return Line(self, axis, start, length)

    def __getattr__(self, name: str) -> Callable[..., GraphTensor]:
        """A method of tensors, such as `permute`."""
        function = getattr(torch.Tensor, name, None)
        if function not in RULES:
            raise UnknownOperationError(f"Tensor.{name} has no rule")
        return lambda *args, **kwargs: RULES[function](self, *args, **kwargs)

    def __add__(self, other: Any) -> GraphTensor:
        return _binary(ops.add, self, other)

    def __sub__(self, other: Any) -> GraphTensor:
        return _binary(ops.subtract, self, other)

    def __mul__(self, other: Any) -> GraphTensor:
        return _binary(ops.multiply, self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> GraphTensor:
        return _binary(ops.divide, self, other)

    def __matmul__(self, other: Any) -> GraphTensor:
        return _binary(ops.matmul, self, other, False, False)

    def __getitem__(self, index: Any) -> GraphTensor:
        return _index(self, index)


class Line:
    """One row, column or channel of a graph tensor, to be changed in place."""

    def __init__(self, tensor: GraphTensor, axis: int, position: int, length: int) -> None:
        if length != 1:
            raise UnknownOperationError(f"in-place change of {length} lines")
        self.tensor = tensor
        sides = [1] * len(tensor.shape)
        sides[axis] = tensor.shape[axis]
        self.mask = np.zeros(sides[axis], np.float32)
        self.mask[position] = 1
        self.mask = self.mask.reshape(sides)

    def sub_(self, value: GraphTensor) -> None:
        """Subtract from the line."""
        # A product with zeros and a one joins the operations that follow in a single pass over the memory.
        self.tensor.output = (self.tensor - value * torch.from_numpy(self.mask)).output


def record(network: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> openvino.Model:
    """Turn a network into a graph.

    Args:
        network: In evaluation mode, on the CPU, fp32; takes one tensor and gives a tensor or a tuple of tensors.
        shape: Shape of the input, batch axis included.
        dtype: Of the input.

    Raises:
        UnknownOperationError: The network does something that there is no rule for.
    """
    parameter = ops.parameter(list(shape), openvino.Type.u8 if dtype is torch.uint8 else openvino.Type.f32)
    try:
        with torch.inference_mode():
            result = network(GraphTensor(parameter))
    except TypeError as error:  # such as a comparison, or an operand that torch itself refuses
        raise UnknownOperationError(str(error)) from error
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(one, GraphTensor) for one in results):
        raise UnknownOperationError("an output does not depend on the input")
    return openvino.Model([one.output for one in results], [parameter], type(network).__name__)


def _output(value: Any) -> openvino.Output:
    """A graph value, or a constant of a tensor or number."""
    if isinstance(value, GraphTensor):
        return value.output
    if isinstance(value, Tensor):
        return ops.constant(np.ascontiguousarray(value.detach().numpy()), shared_memory=True).output(0)
    if isinstance(value, (int, float)):
        return ops.constant(np.float32(value)).output(0)
    raise UnknownOperationError(f"a {type(value).__name__} among the operands")


def _integers(values: Sequence[int]) -> Any:
    return ops.constant(np.array(values, np.int64))


def _binary(operation: Callable[..., Any], first: Any, second: Any, *settings: Any) -> GraphTensor:
    return GraphTensor(operation(_output(first), _output(second), *settings))


def _linear(x: GraphTensor, weight: Tensor, bias: Tensor | None = None) -> GraphTensor:
    out = ops.matmul(_output(x), _output(weight), False, True)
    return GraphTensor(out if bias is None else ops.add(out, _output(bias)))


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _convolution(
    x: GraphTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> GraphTensor:
    geometry = (_pair(stride), _pair(padding), _pair(padding), _pair(dilation))
    if groups == 1:
        out = ops.convolution(_output(x), _output(weight), *geometry)
    else:
        grouped = weight.reshape(groups, -1, *weight.shape[1:])  # [G O/G I/G K K]
        out = ops.group_convolution(_output(x), _output(grouped), *geometry)
    return GraphTensor(out if bias is None else ops.add(out, _output(bias[None, :, None, None])))


def _transposed_convolution(
    x: GraphTensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> GraphTensor:
    strides, pads = _pair(stride), _pair(padding)
    out = ops.convolution_backprop_data(_output(x), _output(weight), strides=strides, pads_begin=pads, pads_end=pads)
    return GraphTensor(out if bias is None else ops.add(out, _output(bias[None, :, None, None])))


def _leaky_relu(x: GraphTensor, negative_slope: float = 0.01, inplace: bool = False) -> GraphTensor:
    return GraphTensor(ops.prelu(x.output, ops.constant(np.array([negative_slope], np.float32))))


def _interpolate(
    x: GraphTensor,
    size: Any = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **_: Any,
) -> GraphTensor:
    if size is not None or scale_factor is None or align_corners or mode not in ("nearest", "bilinear"):
        raise UnknownOperationError(f"interpolation {mode} to {size}")
    scales = [scale_factor] * 2 if isinstance(scale_factor, (int, float)) else scale_factor
    return GraphTensor(
        ops.interpolate(
            x.output,
            ops.constant(np.array(scales, np.float32)),
            mode="linear_onnx" if mode == "bilinear" else "nearest",
            shape_calculation_mode="scales",
            coordinate_transformation_mode="half_pixel" if mode == "bilinear" else "asymmetric",
            nearest_mode="floor",
            axes=_integers([2, 3]),
        )
    )


def _average_pool(x: GraphTensor, kernel_size: int) -> GraphTensor:
    side = _pair(kernel_size)
    return GraphTensor(ops.avg_pool(x.output, side, [0, 0], [0, 0], side, True))


_PAD_MODES = {"constant": "constant", "replicate": "edge", "reflect": "reflect"}


def _pad(x: GraphTensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> GraphTensor:
    rest = [0] * (len(x.shape) - len(pad) // 2)
    # torch counts pairs from the last axis.
    begin, end = rest + list(pad[-2::-2]), rest + list(pad[::-2])
    return GraphTensor(
        ops.pad(x.output, _integers(begin), _integers(end), _PAD_MODES[mode], ops.constant(np.float32(value or 0)))
    )


def _index(x: GraphTensor, index: Any) -> GraphTensor:
    out, axis = x.output, 0
    for part in index if isinstance(index, tuple) else (index,):
        if part is None:
            out = ops.unsqueeze(out, _integers([axis])).output(0)
        elif isinstance(part, int):
            out = ops.gather(out, ops.constant(np.int64(part)), ops.constant(np.int64(axis))).output(0)
            continue
        elif isinstance(part, slice):
            start, stop, step = part.indices(out.get_shape()[axis])
            if (start, stop, step) != (0, out.get_shape()[axis], 1):
                bounds = (_integers([number]) for number in (start, stop, step, axis))
                out = ops.slice(out, *bounds).output(0)
        else:
            raise UnknownOperationError(f"index {part!r}")
        axis += 1
    return GraphTensor(out)


def _reshape(x: GraphTensor, shape: Sequence[int]) -> GraphTensor:
    return GraphTensor(ops.reshape(x.output, _integers(shape), False))


def _flatten(x: GraphTensor, start_dim: int = 0, end_dim: int = -1) -> GraphTensor:
    if end_dim != -1:
        raise UnknownOperationError("flatten before the last axis")
    return _reshape(x, [*x.shape[:start_dim], -1])


def _unflatten(x: GraphTensor, dim: int, sizes: Sequence[int]) -> GraphTensor:
    return _reshape(x, [*x.shape[:dim], *sizes, *x.shape[dim + 1 :]])


def _expand(x: GraphTensor, *sizes: int) -> GraphTensor:
    target = [have if size == -1 else size for have, size in zip(x.shape, sizes, strict=True)]
    return GraphTensor(ops.broadcast(x.output, _integers(target)))


def _clamp(x: GraphTensor, low: float, high: float) -> GraphTensor:
    return GraphTensor(ops.clamp(x.output, float(low), float(high)))


def _concatenate(tensors: Sequence[Any], dim: int = 0) -> GraphTensor:
    return GraphTensor(ops.concat([_output(tensor) for tensor in tensors], dim))


def _to(x: GraphTensor, dtype: torch.dtype) -> GraphTensor:
    if dtype is not x.dtype:
        raise UnknownOperationError(f"conversion to {dtype}")
    return x


def _rsqrt(x: GraphTensor) -> GraphTensor:
    return GraphTensor(ops.divide(ops.constant(np.float32(1)), ops.sqrt(x.output)))


RULES: dict[Any, Callable[..., GraphTensor]] = {
    F.conv2d: _convolution,
    F.conv_transpose2d: _transposed_convolution,
    F.linear: _linear,
    F.leaky_relu: _leaky_relu,
    F.relu: lambda x, inplace=False: GraphTensor(ops.relu(x.output)),
    F.interpolate: _interpolate,
    F.avg_pool2d: _average_pool,
    F.pad: _pad,
    torch.cat: _concatenate,
    torch.rsqrt: _rsqrt,
    Tensor.permute: lambda x, *axes: GraphTensor(ops.transpose(x.output, _integers(axes))),
    Tensor.float: lambda x: GraphTensor(ops.convert(x.output, "f32")),
    Tensor.to: _to,
    Tensor.byte: lambda x: GraphTensor(ops.convert(x.output, "u8")),
    Tensor.round: lambda x: GraphTensor(ops.round(x.output, "half_to_even")),
    Tensor.clamp: _clamp,
    Tensor.square: lambda x: _binary(ops.multiply, x, x),
    Tensor.flatten: _flatten,
    Tensor.unflatten: _unflatten,
    Tensor.expand: _expand,
    Tensor.add: lambda first, second: _binary(ops.add, first, second),
    Tensor.mul: lambda first, second: _binary(ops.multiply, first, second),
    Tensor.matmul: lambda first, second: _binary(ops.matmul, first, second, False, False),
}
