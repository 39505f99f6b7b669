"""LLVM itself: text in, addresses out."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

from graphdrop import disk

from .source import SOURCE

VERSION: tuple[int, ...] = llvm.llvm_version_info
EMIT = "LLVMPY_TargetMachineEmitToMemory"
_lock = threading.Lock()


@cache
def _host() -> tuple[Any, str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple(), llvm.get_host_cpu_name(), features


def features() -> str:
    """What the processor can do, as LLVM writes it: "+avx512f,-..."."""
    return _host()[2]


def target_machine(level: int = 2) -> Any:
    """A new one: an engine owns its machine and frees it."""
    target, cpu, features = _host()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=level, reloc="pic", jit=True
    )


def compile_module(text: str, symbols: dict[str, int], level: int = 2) -> Any:
    """An engine with the machine code of a module; keep it as long as its functions are called.

    symbols  addresses of functions that the text declares, besides those of the C library
    level    how hard LLVM tries: 0 takes a quarter of the time, for what waits rather than runs
    """
    return linked(compiled(text, level), symbols)


def compiled(text: str, level: int = 2) -> bytes:
    """The machine code of a module, which may have been kept."""
    name = code_name(text, level)
    code = disk.load(name)
    if code is None:
        code = object_code(text, level)
        disk.keep(name, code)
    return code


def own_module(name: str, text: Callable[[], str], symbols: dict[str, int]) -> Any:
    """As `compile_module`, of a text that our source and the machine decide: it is printed only if
    no earlier process has.

    name  says which text it is
    """
    if not SOURCE:
        return compile_module(text(), symbols)
    pointer = disk.key("module", name, SOURCE, machine())
    known = disk.load(pointer)
    engine = None if known is None else kept_module(known.decode(), symbols)
    if engine is None:
        printed = text()
        engine = compile_module(printed, symbols)
        disk.keep(pointer, code_name(printed).encode())
    return engine


def kept_module(name: str, symbols: dict[str, int]) -> Any | None:
    """As `compile_module`, of code kept under a `code_name`; None if it is there no more."""
    code = disk.load(name)
    return None if code is None else linked(code, symbols)


def code_name(text: str, level: int = 2) -> str:
    """The name that the machine code of a module is kept under."""
    return disk.key(text, machine(), str(level))


@cache
def machine() -> str:
    """What machine code depends on besides a text: LLVM, and the processor with its features."""
    target, cpu, features = _host()
    version = ".".join(map(str, VERSION))
    return " ".join([llvmlite.__version__, version, target.triple, cpu, features])


def linked(code: bytes, symbols: dict[str, int]) -> Any:
    """An engine with machine code, where the addresses of `symbols` are known."""
    for name, address in symbols.items():
        llvm.add_symbol(name, address)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


@cache
def _passes() -> tuple[Any, Any]:
    """A machine, and what makes passes for it; llvmlite frees neither."""
    machine = target_machine()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, tuning)
    return machine, builder


def _pipeline() -> Any:
    """Few passes: what we print needs little more than registers for what is on the stack.

    LLVM's own pipelines take five times longer for no gain that was measured.
    """
    passes = llvm.newpassmanagers.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    return passes


def _optimized(text: str) -> Any:
    """A module in a context of its own, which other threads have nothing to do with."""
    module = llvm.parse_assembly(text, context=llvm.create_context())
    with _lock:
        machine, builder = _passes()
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        _pipeline().run(module, builder)
    return module


def object_code(text: str, level: int = 2) -> bytes:
    """The machine code of a module as an object file.

    llvmlite lets one thread at a time into LLVM.  Most of the time goes into generating code, which
    several may do at once if each has a context and a machine of its own, as here; so that call
    goes past llvmlite's lock, where this llvmlite has it in the place we know.
    """
    module, machine = _optimized(text), target_machine(level)
    emit = getattr(getattr(ffi.lib, EMIT), "_cfn", None)
    if emit is None:
        found: bytes = machine.emit_object(module)
        return found
    with ffi.OutputString() as error:
        buffer = emit(machine, module, 1, error)  # 1: an object file, no assembly
        if not buffer:
            raise RuntimeError(str(error))
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly(text: str) -> str:
    """The machine code of a module as assembly text."""
    found: str = target_machine().emit_assembly(_optimized(text))
    return found
