"""graphdrop: a Theano-style graph compiler in which dropout is a first-class node."""

from typing import NoReturn

from .autodiff import grad, jvp, vjp
from .backend import available as backends
from .cond import cond
from .derivatives import hessian, jacobian
from .dropout import dropout
from .errors import GraphdropError
from .function import Function, function
from .graph import Node
from .op import Op, as_node, constant
from .ops import operators
from .ops.activation import elu, gelu, leaky_relu, selu, silu
from .ops.brackets import nonzero
from .ops.check import assert_
from .ops.conv import conv2d
from .ops.create import (
    arange,
    eye,
    full,
    full_like,
    linspace,
    meshgrid,
    one_hot,
    ones,
    ones_like,
    tri,
    tril,
    triu,
    zeros,
    zeros_like,
)  # fmt: skip
from .ops.cumulative import cumprod, cumsum
from .ops.einsum import einsum
from .ops.elementwise import (
    abs,
    add,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    clip,
    cos,
    cosh,
    digamma,
    div,
    equal,
    erf,
    exp,
    expm1,
    floor,
    floordiv,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    not_equal,
    polygamma,
    pow,
    reciprocal,
    relu,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    softplus,
    sqrt,
    square,
    stop_gradient,
    sub,
    tan,
    tanh,
    trunc,
    where,
)  # fmt: skip
from .ops.gather import diag, diagonal, scatter_add, take, take_along_axis
from .ops.index import inc_subtensor, set_subtensor
from .ops.join import (
    array_split,
    concatenate,
    flip,
    pad,
    repeat,
    roll,
    split,
    stack,
    tile,
)  # fmt: skip
from .ops.leaf import (
    Shared,
    clip_gradient,
    custom_gradient,
    dmatrix,
    dscalar,
    dtensor3,
    dtensor4,
    dvector,
    flag,
    imatrix,
    iscalar,
    itensor3,
    itensor4,
    ivector,
    lmatrix,
    lscalar,
    ltensor3,
    ltensor4,
    lvector,
    matrix,
    scalar,
    shared,
    tensor,
    tensor3,
    tensor4,
    vector,
)  # fmt: skip
from .ops.linalg import (
    cholesky,
    det,
    dot,
    inner,
    inv,
    kron,
    matmul,
    outer,
    slogdet,
    solve,
    tensordot,
    trace,
    vdot,
)  # fmt: skip
from .ops.pool import avg_pool2d, max_pool2d
from .ops.reduce import (
    all,
    any,
    argmax,
    argmin,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    sum,
    var,
)  # fmt: skip
from .ops.shape import (
    broadcast_to,
    expand_dims,
    flatten,
    moveaxis,
    ravel,
    reshape,
    specify_shape,
    squeeze,
    swapaxes,
    transpose,
)  # fmt: skip
from .ops.softmax import log_softmax, softmax
from .ops.sort import argsort, searchsorted, sort, top_k
from .precision import mixed_precision
from .printing import dprint
from .random import RandomStream
from .scan import map, reduce, scan
from .serialize import load, load_arrays, save
from .threads import get_num_threads, set_num_threads

operators.install()

from . import nn, optim, train, viz  # noqa: E402

__version__ = "0.1.0"

# what users of NumPy, Theano and PyTorch may look for
_ELSEWHERE = {
    "absolute": "abs", "acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2",
    "as_tensor": "as_node", "as_tensor_variable": "as_node", "asarray": "as_node", "cat":
    "concatenate", "array": "constant", "detach": "stop_gradient", "disconnected_grad":
    "stop_gradient", "zero_grad": "stop_gradient", "divide": "div", "true_divide": "div",
    "eq": "equal", "neq": "not_equal", "ge": "greater_equal", "gt": "greater", "le": "less_equal",
    "lt": "less", "floor_divide": "floordiv", "gammaln": "lgamma", "gather": "take_along_axis",
    "grad_clip": "clip_gradient", "hstack": "concatenate", "vstack": "concatenate",
    "ifelse": "where", "switch": "where", "invert": "bitwise_not", "Lop": "vjp", "Rop": "jvp",
    "multiply": "mul", "negative": "neg", "permute": "transpose", "power": "pow",
    "remainder": "mod", "subtract": "sub", "swish": "silu", "topk": "top_k",
    "amax": "max", "amin": "min", "identity": "eye", "astype": "cast", "unsqueeze": "expand_dims",
}  # fmt: skip


def __getattr__(name: str) -> NoReturn:
    hint = f"; here it is gd.{_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise AttributeError(f"module 'graphdrop' has no attribute {name!r}{hint}", name=name)
