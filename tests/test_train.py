"""The training loop: batches, validation, early stopping, interruption and exact resume."""

import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import optim, train
from graphdrop.errors import ArgumentError, CheckpointError, DependencyError, NanError
from graphdrop.serialize import Contents, read, write

rng = np.random.default_rng(0)
X = rng.normal(size=(23, 3)).astype("f4")
Y = (X @ np.array([1.0, -2.0, 0.5], "f4") + 0.3).astype("f4")


def model(lr=0.05):
    """A training step with dropout and Adam, its loss without dropout, and the weight."""
    x, y, training = gd.matrix("x", shape=("batch", 3)), gd.vector("y", shape=("batch",)), gd.flag()
    w = gd.shared(np.full(3, 0.1, "f4"), "w")
    h = gd.dropout(x, 0.2, gd.RandomStream(1), training)
    loss = gd.square(h @ w - y).mean()
    updates = optim.adam(loss, [w], lr=lr)
    step = gd.function([x, y], loss, updates=updates, givens={training: True})
    return step, gd.function([x, y], loss, givens={training: False}), w


def state_of(step):
    return [s.get_value().tobytes() for s in step.shared], [s.state_dict() for s in step.streams]


ONES = np.ones(4, "f4")


class Recorder:
    """A step that notes its batches and returns the mean of the first array."""

    def __init__(self):
        self.seen = []

    def __call__(self, *batch):
        self.seen.append(batch)
        return np.float32(np.mean(batch[0]))


# --------------------------------------------------------------------------------------------
# batches


def test_training_lowers_the_loss_and_records_every_epoch():
    step, loss, _ = model()
    history = train.fit(step, (X, Y), 30, batch_size=5, validate=(loss, (X, Y)))
    assert [r["epoch"] for r in history] == list(range(1, 31))
    assert [r["step"] for r in history] == list(range(5, 151, 5))
    assert list(history.records[0]) == ["epoch", "step", "loss", "val_loss"]
    assert history["val_loss"][-1] < 0.2 * history["val_loss"][0]
    assert history.stopped == "finished"


def test_every_epoch_visits_every_row_once_in_an_order_of_its_own():
    step = Recorder()
    train.fit(step, np.arange(10.0), 3, batch_size=4, seed=5)
    rows = np.concatenate([b[0] for b in step.seen]).reshape(3, 10)
    for epoch in (1, 2, 3):
        assert np.array_equal(rows[epoch - 1], train.order(10, 5, epoch))
        assert sorted(rows[epoch - 1]) == list(range(10))
    assert len({tuple(r) for r in rows}) == 3
    assert [len(b[0]) for b in step.seen] == [4, 4, 2] * 3


def test_the_order_is_the_documented_function_of_philox():
    for seed, epoch in [(0, 1), (2**64 - 1, 7)]:
        words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(50)
        expected = sorted(range(50), key=lambda i: words[i])
        assert train.order(50, seed, epoch).tolist() == expected
    assert train.order(6, 0, 1).tolist() == [5, 3, 2, 4, 1, 0]  # the same in every version
    assert train.order(0, 0, 1).shape == (0,)


def test_without_shuffle_rows_come_in_order_and_drop_last_drops_the_rest():
    step = Recorder()
    train.fit(step, (np.arange(7.0),), 2, batch_size=3, shuffle=False, drop_last=True)
    assert [b[0].tolist() for b in step.seen] == [[0, 1, 2], [3, 4, 5]] * 2


def test_rows_of_several_arrays_stay_together_by_position_and_by_name():
    def step(first, second):
        assert np.array_equal(first[:, 0], second)
        return {"rows": len(second)}

    a = np.arange(9.0)
    train.fit(step, (a[:, None], a), 2, batch_size=2)
    train.fit(step, {"second": a, "first": a[:, None]}, 2, batch_size=2)


def test_means_weigh_every_row_the_same():
    history = train.fit(Recorder(), (np.arange(10.0),), 1, batch_size=4, shuffle=False)
    assert history["loss"] == [4.5]
    assert train.evaluate(lambda a: {"m": a.mean()}, np.arange(10.0), batch_size=7) == {"m": 4.5}


def test_an_iterable_gives_one_epoch_each_time_and_is_read_lazily():
    class Source:
        epochs = 0

        def __iter__(self):
            Source.epochs += 1
            yield np.ones(3)
            yield (np.zeros(1),)
            yield [np.full(1, 4.0)]

    step = Recorder()
    history = train.fit(step, Source(), 2)
    assert Source.epochs == 2
    assert history["loss"] == [7 / 5] * 2
    history = train.fit(lambda a: a, [{"a": 1.0}, {"a": 2.0}], 1)
    assert history["loss"] == [1.5]
    assert len(train.fit(step, iter([np.ones(1)]), 1)) == 1


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((), {}, "no arrays"),
        ((np.zeros(3), np.zeros(4)), {}, r"data\[0\] has 3, data\[1\] has 4"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, {}, r"data\['x'\] has 3, data\['y'\] has 4"),
        ((np.zeros((0, 3)),), {}, "no rows"),
        ((np.float32(3),), {}, r"data\[0\] must be an array with rows"),
        (([1, 2], np.zeros(2)), {}, r"data\[0\] must be an array with rows, got list"),
        ([np.zeros(3), np.zeros(3)], {}, "columns or batches"),
        ([], {}, "gave no batches in epoch 1"),
        ([()], {}, "empty batch"),
        (3, {}, "data must be a tuple or dict of arrays, or an iterable"),
        (iter([np.ones(1)]), {}, "can be read for one epoch only"),
        (np.ones(3), {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        (np.ones(3), {"batch_size": 2.0}, "batch_size must be"),
        (np.ones(3), {"batch_size": True}, "batch_size must be"),
        (np.ones(3), {"batch_size": 4, "drop_last": True}, "3 rows make no batch of 4"),
        (np.ones(3), {"epochs": -1}, "epochs must be"),
        (np.ones(3), {"epochs": 2.5}, "epochs must be"),
        (np.ones(3), {"seed": -1}, "seed must be in"),
        (np.ones(3), {"seed": "a"}, "seed must be an integer"),
        (np.ones(3), {"early_stopping": 0}, "early_stopping must be"),
        (np.ones(3), {"resume": True}, "need checkpoint="),
        (np.ones(3), {"checkpoint_every": 2}, "need checkpoint="),
        (np.ones(3), {"checkpoint": "c"}, "pass state="),
        (np.ones(3), {"early_stopping": 2}, "pass state="),
        (np.ones(3), {"mode": "lowest"}, "mode must be 'min' or 'max'"),
        (
            np.ones(3),
            {"monitor": "auc", "early_stopping": 1, "state": []},
            "monitor='auc' is not am",
        ),
        (np.ones(3), {"validate": 3}, "validate must be a pair"),
        (np.ones(3), {"validate": (3, np.ones(3))}, "validate must be a pair"),
        (np.ones(3), {"validate": (Recorder(), [])}, "gave no batches to evaluate"),
        (np.ones(3), {"validate": lambda: None}, "validate must return a scalar"),
    ],
)
def test_mistakes_are_explained(data, options, message):
    with pytest.raises(ArgumentError, match=message):
        train.fit(Recorder(), data, **{"epochs": 2, **options})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "must return a scalar loss or a dict of scalars, but 'loss' is NoneType"),
        (np.ones(2), r"'loss' is an array of shape \(2,\); say loss.mean\(\)"),
        ((1.0, 2.0), "'loss' is an array of shape"),
        ({}, "empty dict"),
        ({"epoch": 1.0}, "the name 'epoch'"),
        ({3: 1.0}, "the name 3"),
        ({"a": "b"}, "'a' is str"),
    ],
)
def test_what_step_returns_is_checked(result, message):
    with pytest.raises(ArgumentError, match=message):
        train.fit(lambda a: result, np.ones(3), 1)


def test_names_may_not_change_between_batches():
    results = iter([{"a": 1}, {"b": 1}])
    with pytest.raises(ArgumentError, match=r"returned \['b'\] after \['a'\]"):
        train.fit(lambda a: next(results), np.ones(2), 1, batch_size=1)


def test_no_epochs_is_an_empty_history():
    history = train.fit(Recorder(), np.ones(3), 0)
    assert len(history) == 0
    assert history.stopped == "finished"


# --------------------------------------------------------------------------------------------
# stopping


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_names_epoch_and_step(bad, tmp_path):
    step, _, w = model()
    train.fit(step, (X, Y), 1, batch_size=10, checkpoint=tmp_path / "c")
    good = w.get_value()
    broken = X.copy()
    broken[train.order(23, 0, 2)[15], 0] = bad
    with pytest.raises(NanError, match=r"in epoch 2, step 5 \(batch 2\); lower the learning rate"):
        train.fit(step, (broken, Y), 3, batch_size=10, checkpoint=tmp_path / "c", resume=True)
    gd.load(tmp_path / "c", step, allow_extra=True)  # of before the damage
    assert np.array_equal(w.get_value(), good)


def test_an_infinite_metric_is_no_error_but_nan_is():
    assert train.fit(lambda a: {"loss": 1, "p": np.inf}, np.ones(1), 1)["p"] == [np.inf]
    with pytest.raises(NanError, match="p is nan"):
        train.fit(lambda a: {"loss": 1, "p": np.nan}, np.ones(1), 1)


def scripted(values):
    """A step that adds 1 to a shared value, and a validation that follows a script."""
    w = gd.shared(np.float32(0), "w")
    x = gd.vector("x")
    step = gd.function([x], x.mean() + w, updates=[(w, w + 1)])
    script = iter(values)
    return step, w, lambda: next(script)


def test_early_stopping_waits_and_restores_the_best_epoch():
    step, w, validate = scripted([5, 3, 4, 3, float("nan"), 0])
    history = train.fit(step, ONES, 10, validate=validate, early_stopping=3)
    assert history.stopped == "early stopping"
    assert len(history) == 5
    assert history.best("val_loss")["epoch"] == 2
    assert w.get_value() == 2


def test_early_stopping_can_keep_the_last_epoch_and_maximize():
    step, w, validate = scripted([{"acc": v} for v in (0.1, 0.5, 0.4, 0.3)])
    history = train.fit(
        step, ONES, 10, validate=validate, early_stopping=2, monitor="val_acc", mode="max",
        restore_best=False,
    )  # fmt: skip
    assert history["val_acc"] == [0.1, 0.5, 0.4, 0.3]
    assert w.get_value() == 4


def test_the_best_epoch_is_restored_when_epochs_run_out_too():
    step, w, validate = scripted([5, 3, 4])
    assert train.fit(step, ONES, 3, validate=validate, early_stopping=9).stopped == "finished"
    assert w.get_value() == 2


def test_validation_that_is_never_a_number_stops_and_restores_nothing():
    step, w, validate = scripted([float("nan")] * 9)
    history = train.fit(step, ONES, 9, validate=validate, early_stopping=3)
    assert len(history) == 3
    assert w.get_value() == 3


def test_a_callback_sees_the_history_and_may_stop():
    seen = []

    def callback(history):
        seen.append(len(history))
        return len(history) == 2

    assert train.fit(Recorder(), np.ones(3), 5, callbacks=[callback]).stopped == "callback"
    assert seen == [1, 2]


# --------------------------------------------------------------------------------------------
# exact resume

EPOCHS = 5


def run(path=None, *, resume=False, stop=None, every=None, epochs=EPOCHS, early=None, kill=None):
    """A run of a fresh model; `stop` ends it by Ctrl-C and `kill` by a crash before that step."""
    step, loss, _ = model()
    done = 0

    def counted(*batch):
        nonlocal done
        if done == kill:
            raise RuntimeError("power cut")
        if done == stop:
            signal.raise_signal(signal.SIGINT)
        done += 1
        return step(*batch)

    history = train.fit(
        counted, (X, Y), epochs, batch_size=5, validate=(loss, (X, Y)), checkpoint=path,
        resume=resume, checkpoint_every=every, state=step, early_stopping=early, seed=3,
    )  # fmt: skip
    return state_of(step), history.to_dict()


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 12, 24])
def test_interrupted_anywhere_and_resumed_gives_the_same_bytes(tmp_path, stop):
    whole = run(tmp_path / "whole")
    _, partial = run(tmp_path / "c", stop=stop)
    assert partial["stopped"] == "interrupted"
    assert len(partial["records"]) == (stop + 1) // 5
    assert run(tmp_path / "c", resume=True) == whole
    assert (tmp_path / "c").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("every", [None, 1, 3])
@pytest.mark.parametrize("kill", [3, 8, 11])
def test_a_crash_loses_what_came_after_the_checkpoint_and_nothing_else(tmp_path, kill, every):
    whole = run(tmp_path / "whole", every=every)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "c", kill=kill, every=every)
    assert run(tmp_path / "c", resume=True, every=every) == whole
    assert (tmp_path / "c").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_run_can_be_resumed_many_times_and_extended(tmp_path):
    whole = run()
    for stop in (2, 4, 1, 7):
        assert run(tmp_path / "c", resume=True, stop=stop)[1]["stopped"] == "interrupted"
    run(tmp_path / "c", resume=True, epochs=4)
    assert run(tmp_path / "c", resume=True) == whole
    assert run(tmp_path / "c", resume=True) == whole  # nothing left to do


def test_resume_with_early_stopping_restores_the_same_best_epoch(tmp_path):
    def validated(path=None, resume=False, epochs=10):
        step, _, w = model(lr=0.3)
        script = {1: 5, 2: 3, 3: 4, 4: 3.5, 5: 6}

        def validate():
            return script[round(step.streams[0].calls / 5)]

        history = train.fit(
            step, (X, Y), epochs, batch_size=5, validate=validate, early_stopping=3,
            checkpoint=path, resume=resume,
        )  # fmt: skip
        return state_of(step), w.get_value().tobytes(), history.to_dict()

    whole = validated()
    assert whole[2]["stopped"] == "early stopping"
    validated(tmp_path / "c", epochs=3)
    assert validated(tmp_path / "c", resume=True) == whole
    assert validated(tmp_path / "c", resume=True) == whole


def test_iterable_data_resumes_in_the_middle_of_an_epoch(tmp_path):
    def once(path=None, resume=False, stop=None):
        step, _, _ = model()
        batches = [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)]
        calls = 0

        def counted(*batch):
            nonlocal calls
            if calls == stop:
                signal.raise_signal(signal.SIGINT)
            calls += 1
            return step(*batch)

        history = train.fit(counted, batches, 3, checkpoint=path, resume=resume, state=step)
        return state_of(step), history.to_dict()

    whole = once()
    once(tmp_path / "c", stop=5)
    assert once(tmp_path / "c", resume=True) == whole


def test_in_another_process_with_another_hash_seed_the_resumed_bytes_are_the_same(tmp_path):
    program = (
        "import sys; sys.path.insert(0, {root!r})\n"
        "from tests.test_train import run\n"
        "run({path!r}, resume={resume}, stop={stop})\n"
    )
    root = str(__import__("pathlib").Path(__file__).parent.parent)
    path = str(tmp_path / "c")
    for seed, stop, resume in (("1", 7, False), ("2", None, True)):
        code = program.format(root=root, path=path, resume=resume, stop=stop)
        subprocess.run([sys.executable, "-c", code], check=True, env=_environment(seed), cwd=root)
    run(tmp_path / "whole")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "whole").read_bytes()


def _environment(seed):
    import os

    return {**os.environ, "PYTHONHASHSEED": seed}


def test_a_second_ctrl_c_raises_and_the_handler_is_put_back():
    def step(a):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        train.fit(step, np.ones(1), 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fit_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(train.fit(Recorder(), np.ones(3), 2)))
    thread.start()
    thread.join()
    assert len(found[0]) == 2


def test_interrupted_training_keeps_the_last_values_not_the_best(tmp_path):
    step, w, validate = scripted([1, 2, 3, 4])
    stopper = lambda history: len(history) == 3 and signal.raise_signal(signal.SIGINT)  # noqa: E731
    history = train.fit(step, ONES, 9, validate=validate, early_stopping=5, callbacks=[stopper])
    assert history.stopped == "interrupted"
    assert w.get_value() == 3


# --------------------------------------------------------------------------------------------
# checkpoints that do not fit


def test_resume_starts_afresh_without_a_file_and_replaces_one_without_resume(tmp_path):
    whole = run(tmp_path / "c", resume=True)
    assert run(tmp_path / "c") == whole
    (tmp_path / "c").write_bytes(b"something else")
    assert run(tmp_path / "c") == whole


@pytest.mark.parametrize(
    "options",
    [{"seed": 1}, {"shuffle": False}, {"batch_size": 6, "drop_last": True}, {"monitor": "loss"},
     {"early_stopping": 2}, {"data": (X[:20], Y[:20])}, {"data": (X, Y.astype("f8"))},
     {"data": [(X, Y)]}],
)  # fmt: skip
def test_a_checkpoint_of_other_arguments_is_refused(tmp_path, options):
    step, loss, w = model()
    keywords = {"validate": (loss, (X, Y)), "checkpoint": tmp_path / "c"}
    train.fit(step, (X, Y), 1, **keywords)
    w.set_value(np.zeros(3, "f4"))
    data = options.pop("data", (X, Y))
    with pytest.raises(CheckpointError, match=r"is of another run, .*it had \{"):
        train.fit(step, data, 2, resume=True, **keywords, **options)
    assert not w.get_value().any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", {}),
        ("position", None),
        ("records", None),
        ("records", []),
        ("records", [{"loss": "x"}]),
        ("records", [3]),
        ("epoch", -1),
        ("epoch", True),
        ("step", 2**70),
        ("batch", 0.5),
        ("sums", []),
        ("sums", {"loss": None}),
        ("fit", None),
        ("fit", {"records": []}),
        ("best", {"w": np.zeros(4, "f4")}),
        ("best", {"v": np.zeros(3, "f4")}),
    ],
)
def test_a_forged_position_is_refused_and_nothing_restored(tmp_path, field, value):
    step, _, w = model()
    train.fit(step, (X, Y), 1, checkpoint=tmp_path / "c")
    w.set_value(np.zeros(3, "f4"))
    before = state_of(step)
    contents = read(tmp_path / "c")
    arrays, info = dict(contents.arrays), contents.info
    if field == "best":
        arrays |= {f"fit.best/{k}": a for k, a in value.items()}
    elif field == "fit":
        info["fit"] = value
    elif field in info["fit"]:
        info["fit"][field] = value
    else:
        info["fit"]["position"][field] = value
    write(tmp_path / "c", Contents(arrays, contents.streams, info))
    with pytest.raises(CheckpointError, match=r"another copy|no checkpoint of train|do not fit"):
        train.fit(step, (X, Y), 2, checkpoint=tmp_path / "c", resume=True)
    assert state_of(step) == before


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run(tmp_path / "c")
    data = bytearray((tmp_path / "c").read_bytes())
    data[-1] ^= 1
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged or changed"):
        run(tmp_path / "c", resume=True)


def test_names_that_fit_uses_are_refused():
    w = gd.shared(np.float32(0), "fit.best/w")
    step = gd.function([], w, updates=[(w, w + 1)])
    with pytest.raises(ArgumentError, match="are taken"):
        train.fit(step, np.ones(3), 1)


# --------------------------------------------------------------------------------------------
# history and progress


def test_history_as_dict_json_and_values(tmp_path):
    history = train.fit(lambda a: {"loss": 2.0, "x": np.inf}, np.ones(3), 2, validate=lambda: 1.0)
    assert history.to_dict() == {
        "stopped": "finished",
        "records": [
            {"epoch": e, "step": e, "loss": 2.0, "x": np.inf, "val_loss": 1.0} for e in (1, 2)
        ],
    }
    text = history.to_json(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == json.loads(text)
    assert json.loads(text)["records"][0]["x"] is None
    assert repr(history) == ("<History of 2 epochs, loss=2, x=inf, val_loss=1, stopped='finished'>")
    with pytest.raises(ArgumentError, match="no 'auc'; it has epoch, step, loss, x, val_loss"):
        history["auc"]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_history_plots(tmp_path, suffix):
    step, loss, _ = model()
    history = train.fit(step, (X, Y), 3, validate=(loss, (X, Y)))
    history.plot(tmp_path / f"h.{suffix}", title="a title")
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    data = (tmp_path / f"h.{suffix}").read_bytes()
    assert data.startswith(start)
    assert len(data) > 2000


def test_an_empty_history_does_not_plot(tmp_path):
    with pytest.raises(ArgumentError, match="empty"):
        train.History().plot(tmp_path / "h.png")


def test_without_matplotlib_a_plot_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    history = train.fit(Recorder(), np.ones(3), 1)
    with pytest.raises(DependencyError, match=r"pip install 'graphdrop\[viz\]'"):
        history.plot(tmp_path / "h.png")


def test_progress_is_silent_unless_on_a_terminal(capsys):
    train.fit(Recorder(), np.ones(30), 2, batch_size=2)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_epoch_loss_and_validation(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    train.fit(Recorder(), np.ones(6), 3, batch_size=2, validate=lambda: {"acc": 0.25})
    shown = capsys.readouterr().err
    for text in ("epoch 3/3", "loss=1", "val_acc=0.25", "9/9"):
        assert text in shown
    train.fit(Recorder(), np.ones(6), 3, batch_size=2, progress=False)
    assert capsys.readouterr().err == ""
