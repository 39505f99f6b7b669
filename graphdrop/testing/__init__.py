"""What tests of graphdrop, and of backends written by others, are made of.

`check_grad` is for anyone; the op table and its runner are for backends.
"""

from .gradients import check_grad

__all__ = ["check_grad"]
