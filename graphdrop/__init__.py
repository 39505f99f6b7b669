"""graphdrop: a Theano-style graph compiler in which dropout is a first-class node."""

from .autodiff import grad, hessian, jacobian, jvp, vjp, zeros_like
from .backend import available as backends
from .errors import GraphdropError
from .function import Function, function
from .graph import Node
from .op import Op, constant
from .ops import linalg, operators
from .ops.elementwise import *
from .ops.leaf import CONSTRUCTORS, Shared, clip_gradient, custom_gradient, flag, shared, tensor
from .ops.linalg import matmul
from .ops.reduce import *
from .ops.shape import *
from .random import RandomStream, dropout

operators.install()
globals().update(CONSTRUCTORS)
