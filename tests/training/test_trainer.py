"""The training loop: it learns, goes on where it was stopped, and shares work among processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.nets import SIZES, bars, digits_graph, weights

from graphkiln.training import CheckpointError, Module, TrainingError
from graphkiln.training.augment import Augmentation
from graphkiln.training.checkpoint import Checkpoint
from graphkiln.training.objective import Objective
from graphkiln.training.recipe import Match, Recipe
from graphkiln.training.samples import BatchError, Runner, SampleSet
from graphkiln.training.trainer import Epoch, Trainer

RECIPE = Recipe(epochs=3, batch=16, lr=0.01, seed=7, augment=Augmentation.parse("shift=1"))


def _samples(labels: str | None = "label", count: int = 64) -> SampleSet:
    held = bars(count)
    rows = [{"x": x[None], "label": n} for x, n in zip(held["x"], held["label"], strict=True)]
    return SampleSet.read(rows, ["x"], labels)


def _trainer(recipe: Recipe = RECIPE, folder: Path | None = None, labels: str | None = "label",
             key: str = "k") -> Trainer:  # fmt: skip
    student = Module(digits_graph(weights(3, 4, 6, seed=1)))
    teacher = Module(digits_graph(weights(**SIZES)), trainable=lambda name, array: False)
    objective = Objective(student, teacher, recipe, labels is not None)
    return Trainer(objective, _samples(labels), recipe, Checkpoint(folder, key))


def _state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return dict(trainer.objective.student.module.weights)


def _same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


class _Stop(Exception):
    """What stops a training, as a signal would."""


def test_the_student_learns_and_the_seed_decides() -> None:
    a, b = _trainer(), _trainer()
    a.run()
    b.run()
    assert _same(_state(a), _state(b))
    assert set(a.history[0].losses) == {"loss", "soft", "hard"}
    other = _trainer(Recipe(**{**vars(RECIPE), "seed": 8}))
    other.run()
    assert not _same(_state(a), _state(other))


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphkiln.training.trainer._OFTEN", -1.0)  # after each step
    recipe = Recipe(**{**vars(RECIPE), "match": (Match("f", "f"),)})
    whole = _trainer(recipe)
    whole.run()

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done == steps:
            raise _Stop

    stopped = _trainer(recipe, tmp_path)
    with pytest.raises(_Stop):
        stopped.run(on_step=stop)
    again = _trainer(recipe, tmp_path)
    again.run(resume=True)
    assert _same(_state(again), _state(whole))
    rows = [{**e.row, "seconds": 0} for e in again.history]
    assert rows == [{**e.row, "seconds": 0} for e in whole.history]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = _trainer(folder=tmp_path)
    first.run()
    again = _trainer(folder=tmp_path)
    seen: list[Epoch] = []
    again.run(resume=True, on_epoch=seen.append)
    assert not seen and _same(_state(first), _state(again))


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    _trainer(folder=tmp_path).run()
    with pytest.raises(CheckpointError, match="another training"):
        _trainer(folder=tmp_path, key="other").run(resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        _trainer(folder=tmp_path).run(resume=True)
    (tmp_path / "checkpoint.pt").unlink()
    torch.save({"x": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="of this version"):
        _trainer(folder=tmp_path).run(resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        _trainer(folder=tmp_path / "file").run()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"graphkiln checkpoint": 1, "of": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        Checkpoint(tmp_path, "k").load()
    assert not (tmp_path / "ran").exists()


def test_the_best_weights_are_kept_and_patience_ends() -> None:
    recipe = Recipe(**{**vars(RECIPE), "validation": 0.25, "patience": 2, "epochs": 40,
                       "lr": 0.3, "schedule": "constant"})  # fmt: skip
    trainer = _trainer(recipe)
    trainer.run()
    losses = [e.held_loss for e in trainer.history]
    assert None not in losses and len(losses) < 40
    best = min(range(len(losses)), key=lambda i: losses[i])  # type: ignore[arg-type,return-value]
    assert len(losses) == best + 3
    held, _ = trainer._validate()
    assert held == losses[best]


def test_without_labels_the_teacher_is_all() -> None:
    trainer = _trainer(labels=None)
    trainer.run()
    assert set(trainer.history[0].losses) == {"loss", "soft"}
    assert trainer.history[-1].losses["loss"] < trainer.history[0].losses["loss"]
    with pytest.raises(TrainingError, match="asks for labels"):
        _trainer(Recipe(alpha=0.5), labels=None)
    with pytest.raises(TrainingError, match="loss kl only"):
        _trainer(Recipe(alpha=0.5, loss="mse"))
    numbers = _trainer(Recipe(**{**vars(RECIPE), "loss": "mse", "alpha": 1.0}))
    numbers.run()
    assert numbers.history[-1].losses["soft"] < numbers.history[0].losses["soft"]


def test_matched_values_come_closer() -> None:
    recipe = Recipe(**{**vars(RECIPE), "match": (Match("f", "f"), Match("h", "h")),
                       "attention": (Match("e", "e"),), "epochs": 6})  # fmt: skip
    trainer = _trainer(recipe)
    trainer.run()
    first, last = trainer.history[0].losses, trainer.history[-1].losses
    assert last["features"] < first["features"] and last["attention"] < first["attention"]
    with pytest.raises(TrainingError, match="the teacher has no value 'nowhere'"):
        _trainer(Recipe(match=(Match("f", "nowhere"),)))


@pytest.mark.parametrize(("optimizer", "schedule"), [("sgd", "one-cycle"), ("adamw", "constant")])
def test_other_choices(optimizer: str, schedule: str) -> None:
    choices = {"optimizer": optimizer, "schedule": schedule, "clip": 1.0, "alpha": 0.0}
    trainer = _trainer(Recipe(**{**vars(RECIPE), **choices}))
    trainer.run()
    assert trainer.history[-1].losses["hard"] < trainer.history[0].losses["hard"]


def test_a_loss_that_is_no_number_ends_training() -> None:
    trainer = _trainer(labels=None)
    with torch.no_grad():
        trainer.objective.student.module.weights["f2.bias"].fill_(torch.inf)
    with pytest.raises(TrainingError, match="lower learning rate"):
        trainer.run()


# ---- samples -------------------------------------------------------------------------------------


def test_models_of_one_batch_size_run_in_parts() -> None:
    from support.graph_text import graph_of

    fixed = graph_of(
        "graph main(%x: float32[2,3]) -> (y) {\n%y = Softmax(%x) {axis=0}\nreturn %y\n}"
    )
    x = torch.randn(6, 3)
    (got,) = Runner(Module(fixed))({"x": x}, ["y"])
    torch.testing.assert_close(got, torch.cat([p.softmax(0) for p in x.split(2)]))


def test_samples_that_make_no_batches() -> None:
    x = np.ones((1, 2), np.float32)
    for rows, message in (
        ([], "there are no samples"),
        ([{"y": x}], "sample 0 has no array 'x'; it has y"),
        ([{"x": x}, {"x": np.ones((1, 3), np.float32)}], "have other shapes"),
        ([{"x": np.float32(1)}], "are scalars"),
    ):
        with pytest.raises(BatchError, match=message):
            SampleSet.read(rows, ["x"], None)
    with pytest.raises(BatchError, match="must be one integer"):
        SampleSet.read([{"x": x, "n": np.float32(1)}], ["x"], "n")


# ---- several processes ---------------------------------------------------------------------------

SCRIPT = """
import sys, torch
from training.test_trainer import _trainer, _state
from graphkiln.training.team import team
torch.set_num_threads(1)
with team() as processes:
    trainer = _trainer()
    trainer.team = processes
    trainer.run()
    assert (processes.rank, processes.size) == (int(sys.argv[2]), 2)
torch.save(_state(trainer), f"{sys.argv[1]}/{sys.argv[2]}.pt")
"""


def test_two_processes_come_to_the_weights_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tests = Path(__file__).parents[1]
    env = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)]),
    }  # fmt: skip
    running = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(rank)],
                         env={**env, "RANK": str(rank)}, cwd=tests)
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        assert [p.wait(300) for p in running] == [0, 0]
    finally:
        for p in running:
            p.kill()
    alone = _trainer()
    alone.run()
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert _same(*found), "all processes take the same steps"
    for name, tensor in _state(alone).items():
        torch.testing.assert_close(found[0][name], tensor, rtol=1e-3, atol=1e-4)
