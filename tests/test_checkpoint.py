"""Saving and loading: exact round trips, and promise P8 (files cannot run code or crash)."""

import functools
import hashlib
import json
import os
import random
import stat
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as parse
from safetensors.numpy import save as to_bytes

import graphdrop as gd
from graphdrop.errors import ArgumentError, CheckpointError

DTYPES = [d.name for d in gd.types.DTYPES]


def model(seed=0):
    """A training step with dropout and momentum, as two programs would build it."""
    rng = np.random.default_rng(seed)
    x = gd.matrix("x", shape=("batch", 3))
    stream = gd.RandomStream(seed)
    W = gd.shared(rng.normal(size=(3, 2)).astype("f4"), "W")
    v = gd.shared(np.zeros((3, 2), "f4"), "W.momentum")
    loss = gd.square(gd.dropout(x, 0.5, stream) @ W).mean()
    new_v = 0.9 * v - 0.1 * gd.grad(loss, W)
    return gd.function([x], loss, updates=[(v, new_v), (W, W + new_v)]), stream


def state_of(step):
    return [s.get_value().tobytes() for s in step.shared], [s.state_dict() for s in step.streams]


X = np.arange(12, dtype="f4").reshape(4, 3)


# --------------------------------------------------------------------------------------------
# what is saved comes back


def test_a_loaded_step_continues_byte_for_byte(tmp_path):
    step, _ = model()
    for _ in range(3):
        step(X)
    gd.save(tmp_path / "c", step, info={"epoch": 3})
    expected = [step(X).tobytes() for _ in range(3)]
    other, stream = model(seed=7)
    assert gd.load(tmp_path / "c", other) == {"epoch": 3}
    assert (stream.seed, stream.calls) == (0, 3)
    assert [other(X).tobytes() for _ in range(3)] == expected
    assert state_of(other) == state_of(step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3)])
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    rng = np.random.default_rng(0)
    value = rng.integers(0, 2, (*shape, np.dtype(dtype).itemsize), np.uint8)
    value = value.view(dtype).reshape(shape) if dtype != "bool" else value[..., 0].astype(bool)
    gd.save(tmp_path / "c", {"a": value})
    target, shared = np.empty(shape, dtype), gd.shared(np.zeros(shape, dtype))
    gd.load(tmp_path / "c", {"a": target})
    gd.load(tmp_path / "c", {"a": shared})
    for got in (target, shared.get_value(), gd.load_arrays(tmp_path / "c")["a"]):
        assert got.dtype == value.dtype
        assert got.shape == value.shape
        assert got.tobytes() == value.tobytes()


def test_nan_payloads_negative_zero_and_strides_survive(tmp_path):
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 0x00000001], np.uint32)
    wide = np.arange(24, dtype="f4").reshape(4, 6)
    strided = wide.T[::-2]
    gd.save(tmp_path / "c", {"special": bits.view("f4"), "strided": strided})
    found = gd.load_arrays(tmp_path / "c")
    assert np.array_equal(found["special"].view(np.uint32), bits)
    assert np.array_equal(found["strided"], strided)
    target = np.zeros((6, 4), "f4").T[:, ::2]  # written in place, whatever its strides
    gd.load(tmp_path / "c", {"strided": target.T, "special": np.zeros(4, "f4")})
    assert np.array_equal(target.T, strided)


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in "ab":
        step, _ = model()
        step(X)
        gd.save(tmp_path / name, step, info={"b": 1, "a": [0.1, float("nan")], "ä": None})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_what_the_documentation_says(tmp_path):
    step, _ = model()
    gd.save(tmp_path / "c", step, info={"x": 1})
    data = (tmp_path / "c").read_bytes()
    tensors = parse(data)  # any reader of safetensors will do
    assert sorted(tensors) == ["W", "W.momentum"]
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    said = json.loads(header["__metadata__"]["graphdrop"])
    assert said["format_version"] == 1
    assert said["streams"] == {"stream[0]": {"stream_version": 1, "seed": 0, "calls": 0}}
    assert said["info"] == {"x": 1}
    assert forge(said, tensors) == data


def forge(said, tensors):
    """A file with any metadata and a sha256 that is right."""
    listed = {k: [a.dtype.name, list(a.shape)] for k, a in tensors.items()}
    text = {**{k: v for k, v in said.items() if k != "sha256"}, "tensors": listed}
    digest = hashlib.sha256(json.dumps(text, sort_keys=True, separators=(",", ":")).encode())
    for key in sorted(tensors):
        digest.update(tensors[key].tobytes())
    said = {**said, "sha256": digest.hexdigest()}
    written = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return to_bytes(tensors, {"graphdrop": written})


def test_values_without_a_name_of_their_own_are_numbered_as_made(tmp_path):
    a, b, c = (gd.shared(np.float32(i), "w") for i in range(3))
    d, e = gd.shared(np.float32(3)), gd.shared(np.float32(4), "alone")
    s, t = gd.RandomStream(1), gd.RandomStream(2)
    gd.save(tmp_path / "c", [c, a], t, (b, e), s, d)
    found = gd.load_arrays(tmp_path / "c")
    assert {k: int(v) for k, v in found.items()} == {
        "w[0]": 0, "w[1]": 1, "w[2]": 2, "unnamed[0]": 3, "alone": 4,
    }  # fmt: skip
    t.load_state_dict(s.state_dict())
    gd.load(tmp_path / "c", a, b, c, d, e, s, t)
    assert (s.seed, t.seed) == (1, 2)


def test_a_dict_gives_keys_of_your_own(tmp_path):
    step, stream = model()
    gd.save(tmp_path / "c", step, {"encoder.W": step.shared[0], "masks": stream})
    other, other_stream = model(seed=3)
    names = {"encoder.W": other.shared[0], "masks": other_stream}
    with pytest.raises(CheckpointError, match=r"'W' .*is not in the file"):
        gd.load(tmp_path / "c", other)
    gd.load(tmp_path / "c", names, other)
    assert state_of(other) == state_of(step)


def test_allow_extra_loads_the_weights_without_the_optimizer(tmp_path):
    step, _ = model()
    step(X)
    gd.save(tmp_path / "c", step)
    W = gd.shared(np.zeros((3, 2), "f4"), "W")
    with pytest.raises(CheckpointError, match=r"'W\.momentum' is only in the file; pass allow_ex"):
        gd.load(tmp_path / "c", W)
    assert not W.get_value().any()
    gd.load(tmp_path / "c", W, allow_extra=True)
    assert np.array_equal(W.get_value(), gd.load_arrays(tmp_path / "c")["W"])


def test_allow_extra_refuses_numbers_that_may_mean_another_value(tmp_path):
    a, b = gd.shared(np.float32(1)), gd.shared(np.float32(2))
    gd.save(tmp_path / "c", a, b)
    with pytest.raises(CheckpointError, match="give them names"):
        gd.load(tmp_path / "c", b, allow_extra=True)
    assert b.get_value() == 2


def test_saving_takes_one_moment_while_another_thread_trains(tmp_path):
    a, b = gd.shared(np.zeros(1000), "a"), gd.shared(np.zeros(1000), "b")
    step = gd.function([], updates=[(a, a + 1), (b, b + 1)])
    done = threading.Event()

    def train():
        while not done.is_set():
            step()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(20):
            gd.save(tmp_path / "c", step)
            found = gd.load_arrays(tmp_path / "c")
            assert np.array_equal(found["a"], found["b"])
    finally:
        done.set()
        thread.join()


# --------------------------------------------------------------------------------------------
# mistakes of the caller


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([3], "cannot save or load int"),
        ([np.zeros(2)], "cannot save or load ndarray"),
        ([{"a": 3}], r"'a' is int; .* info="),
        ([{"a": np.zeros(2, complex)}], "'a' is ndarray"),
        ([{"a": np.array([None])}], "'a' is ndarray"),
        ([{"": np.zeros(2)}], "cannot be a key"),
        ([{3: np.zeros(2)}], "cannot be a key"),
        ([{"__metadata__": np.zeros(2)}], "cannot be a key"),
        ([{"\ud800": np.zeros(2)}], "cannot be a key"),
        ([{"a": np.zeros(2)}, {"a": np.ones(2)}], "two values would be saved as 'a'"),
        ([{"a": np.zeros(2)}, gd.shared(0.0, "a")], "two values would be saved as 'a'"),
    ],
)
def test_what_cannot_be_saved_is_said(tmp_path, objects, message):
    with pytest.raises(ArgumentError, match=message):
        gd.save(tmp_path / "c", *objects)
    assert os.listdir(tmp_path) == []


def test_one_value_under_two_keys_is_an_error(tmp_path):
    w = gd.shared(0.0, "w")
    with pytest.raises(ArgumentError, match="given twice, as 'a' and 'b'"):
        gd.save(tmp_path / "c", {"a": w, "b": w})


@pytest.mark.parametrize("info", [{"a": object()}, {"a": {1, 2}}, {(1, 2): 3}])
def test_info_is_what_json_can_say(tmp_path, info):
    with pytest.raises(ArgumentError, match="info must be what JSON can say"):
        gd.save(tmp_path / "c", info=info)


def test_info_with_number_keys_comes_back_as_json_has_it(tmp_path):
    gd.save(tmp_path / "c", info={2: (1, 2), 10: None})
    assert gd.load(tmp_path / "c") == {"2": [1, 2], "10": None}


# --------------------------------------------------------------------------------------------
# writing is all or nothing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    step, _ = model()
    gd.save(tmp_path / "c", step)
    before = (tmp_path / "c").read_bytes()
    step(X)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        gd.save(tmp_path / "c", step)
    assert os.listdir(tmp_path) == ["c"]
    assert (tmp_path / "c").read_bytes() == before


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(("fsync", fd)), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(("replace", a)), replace(a, b))[1])
    gd.save(tmp_path / "c", {"a": np.zeros(2)})
    assert [what for what, _ in seen][:2] == ["fsync", "replace"]
    assert seen[1][1].parent == tmp_path


def test_saved_files_have_the_permissions_of_any_new_file(tmp_path):
    gd.save(tmp_path / "c", {"a": np.zeros(2)})
    (tmp_path / "d").write_bytes(b"")
    assert stat.S_IMODE(os.stat(tmp_path / "c").st_mode) == stat.S_IMODE(
        os.stat(tmp_path / "d").st_mode
    )


# --------------------------------------------------------------------------------------------
# P8: whatever is in the file, CheckpointError and nothing changed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small valid file, its bytes, and a trained step to load it into."""
    path = tmp_path_factory.mktemp("p8") / "c"
    step, _ = model()
    step(X)
    gd.save(path, step, {"flags": np.array([True, False])}, info={"epoch": 1})
    return path.with_name("bad"), path.read_bytes()


@functools.cache
def victim():
    """A model that nothing may be loaded into."""
    return model(seed=5)[0]


def refuse(path, data, match=None, *, both=False):
    """Loading raises CheckpointError, naming the file, and leaves all state untouched."""
    path.write_bytes(data)
    step = victim()
    flags = np.array([False, True])
    before = state_of(step)
    with pytest.raises(CheckpointError, match=match) as caught:
        gd.load(path, step, {"flags": flags})
    assert str(path) in str(caught.value)
    assert state_of(step) == before
    assert flags.tolist() == [False, True]
    if both:
        with pytest.raises(CheckpointError, match=match):
            gd.load_arrays(path)


def test_every_truncation_is_refused(saved):
    path, data = saved
    for length in range(len(data)):
        refuse(path, data[:length], both=True)


def test_every_flipped_bit_is_refused(saved):
    path, data = saved
    for i in range(len(data)):
        changed = bytearray(data)
        changed[i] ^= 1 << (i % 8)
        refuse(path, bytes(changed))


def test_appended_inserted_and_removed_bytes_are_refused(saved):
    path, data = saved
    rng = random.Random(0)
    refuse(path, data + b"\0", both=True)
    refuse(path, data + data, both=True)
    for _ in range(200):
        i = rng.randrange(len(data))
        refuse(path, data[:i] + bytes([rng.randrange(256)]) + data[i:])
        refuse(path, data[:i] + data[i + 1 :])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bytes_overwritten_at_random_are_refused(saved, data):
    path, whole = saved
    start = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=40))
    changed = (whole[:start] + patch + whole[start + len(patch) :])[: len(whole)]
    if changed != whole:
        refuse(path, changed)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(saved, data):
    refuse(saved[0], data, both=True)


@pytest.mark.parametrize(
    "length",
    [0, 1, 7, 2, 2**20, 100_000_000, 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1],
)
def test_a_header_length_that_lies_is_refused(saved, length):
    path, data = saved
    refuse(path, struct.pack("<Q", length) + data[8:], "truncated, damaged", both=True)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
        b'{"a":{"dtype":"O","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[' + b"1," * 99 + b'2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}',
        b'{"__metadata__":{"graphdrop":3}}',
        b'{"__metadata__":[]}',
        b"\xff\xfe",
    ],
)
def test_malformed_headers_are_refused(saved, header):
    refuse(saved[0], struct.pack("<Q", len(header)) + header + b"\7" * 8, both=True)


def said_of(data):
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return json.loads(header["__metadata__"]["graphdrop"])


STATE = {"stream_version": 1, "seed": 0, "calls": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 2}, "format_version 2; this graphdrop reads 1"),
        ({"format_version": True}, "without a format_version"),
        ({"format_version": "1"}, "without a format_version"),
        ({"info": []}, "incomplete"),
        ({"streams": []}, "incomplete"),
        ({"more": 1}, "incomplete"),
        ({"streams": {}}, r"the stream 'stream\[0\]' is not in the file"),
        ({"streams": {"stream[0]": STATE, "x": STATE}}, "'x' is only in the file"),
        ({"streams": {"stream[0]": []}}, "a stream's state has the integers"),
        ({"streams": {"stream[0]": {}}}, "a stream's state has the integers"),
        ({"streams": {"stream[0]": {**STATE, "stream_version": 2}}}, "stream_version 2"),
        ({"streams": {"stream[0]": {**STATE, "seed": -1}}}, "out of range"),
        ({"streams": {"stream[0]": {**STATE, "calls": 2**80}}}, "out of range"),
        ({"streams": {"stream[0]": {**STATE, "calls": 1.0}}}, "the integers"),
        ({"streams": {"stream[0]": {**STATE, "seed": True}}}, "the integers"),
    ],
)
def test_forged_metadata_is_refused(saved, change, match):
    path, data = saved
    refuse(path, forge({**said_of(data), **change}, parse(data)), match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[" * 100_000, "malformed metadata"),
        ('{"a":' * 100_000, "malformed metadata"),
        ("", "malformed metadata"),
        ("9" * 10_000, "malformed metadata"),
        ("null", "without a format_version"),
        ('{"format_version":1}', "incomplete"),
    ],
)
def test_metadata_that_is_no_json_of_ours_is_refused(saved, text, match):
    path, data = saved
    refuse(path, to_bytes(parse(data), {"graphdrop": text}), match, both=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"W": None}, "'W' .* is not in the file"),
        ({"V": np.zeros(2)}, "'V' is only in the file"),
        ({"W": np.zeros((2, 3), "f4")}, r"'W' is float32\[2, 3\] in the file but float32\[3, 2\]"),
        ({"W": np.zeros((3, 2), "f8")}, r"'W' is float64\[3, 2\] in the file but float32\[3, 2\]"),
        ({"W": np.zeros((3, 2), "i4")}, "'W' is int32"),
        ({"flags": np.zeros(3, bool)}, r"'flags' is bool\[3\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(saved, change, match):
    path, data = saved
    tensors = {k: v for k, v in {**parse(data), **change}.items() if v is not None}
    refuse(path, forge(said_of(data), tensors), match)


def test_every_misfit_is_listed_with_the_line_that_made_the_value(saved):
    path, data = saved
    refuse(path, forge({**said_of(data), "streams": {}}, {}), r"(?s)'W' \(from .*test_check.*'W\.m")


def test_bools_other_than_0_and_1_are_refused(saved):
    path, data = saved
    tensors = parse(data)
    tensors["flags"] = np.array([1, 2], np.uint8).view(bool)
    refuse(path, forge(said_of(data), tensors), "neither 0 nor 1", both=True)


def test_a_read_only_target_is_refused_before_anything_is_replaced(saved):
    path, data = saved
    path.write_bytes(data)
    step, _ = model(seed=5)
    before = state_of(step)
    flags = np.array([False, True])
    flags.flags.writeable = False
    with pytest.raises(CheckpointError, match="read-only array"):
        gd.load(path, step, {"flags": flags})
    assert state_of(step) == before


def test_a_pickle_is_not_run(tmp_path):
    data = b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR."
    refuse(tmp_path / "c", data)
    refuse(tmp_path / "c", data.ljust(4096, b"."))
    assert not (tmp_path / "owned").exists()


def test_safetensors_of_others_are_read_as_arrays_only(tmp_path):
    (tmp_path / "c").write_bytes(to_bytes({"W": np.ones(2, "f4")}, {"format": "pt"}))
    assert gd.load_arrays(tmp_path / "c")["W"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match=r"not written by gd\.save; read it with gd\.load_a"):
        gd.load(tmp_path / "c")


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "device", "null byte"])
def test_what_is_no_file_is_refused(tmp_path, what):
    path = str(tmp_path / "c")
    if what == "folder":
        os.mkdir(path)
    elif what == "pipe":
        os.mkfifo(path)  # to open it would be to wait for ever
    elif what == "device":
        path = "/dev/zero"
    elif what == "null byte":
        path = "a\0b"
    for read in (gd.load, gd.load_arrays):
        with pytest.raises(CheckpointError, match=r"is not a file|cannot be read"):
            read(path)
