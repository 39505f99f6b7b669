"""LLVM itself: text in, addresses out."""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm


@cache
def _host() -> tuple[Any, str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple(), llvm.get_host_cpu_name(), features


def target_machine() -> Any:
    """A new one: an engine owns its machine and frees it."""
    target, cpu, features = _host()
    return target.create_target_machine(cpu=cpu, features=features, opt=2)


def compile_module(text: str, symbols: dict[str, int]) -> Any:
    """An engine with the machine code of a module; keep it as long as its functions are called."""
    for name, address in symbols.items():
        llvm.add_symbol(name, address)
    machine = target_machine()
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine
