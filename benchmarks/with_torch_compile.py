"""The workloads in PyTorch, forward and backward passes compiled by torch.compile."""

from __future__ import annotations

import torch
import with_torch

with_torch.prepared = torch.compile  # before any workload is built
MODELS, wait = with_torch.MODELS, with_torch.wait
