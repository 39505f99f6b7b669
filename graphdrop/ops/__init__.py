"""The operations, one module a family: type rule and gradient, never computation."""
