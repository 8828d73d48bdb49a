"""Methods that misbehave, as a user's own module; workers find it on PYTHONPATH.

The folder $ZOO holds files that switch them, and a journal of the trainings that were started.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from peftbench.methods.base import Method


def switched(name):
    """Whether the file of this name is in the zoo's folder."""
    return (Path(os.environ["ZOO"]) / name).exists()


def note(name, line):
    """Add a line to the file of this name in the zoo's folder; it is written whole."""
    file = os.open(Path(os.environ["ZOO"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@dataclass(frozen=True, kw_only=True)
class Steady(Method):
    """The head alone; every training is noted: its class and its process."""

    def insert(self, model):
        """Leave the model frozen."""

    def on_train_begin(self, model, batches):
        """Note that a training starts."""
        note("journal", f"{type(self).__name__.lower()} {os.getpid()}")


@dataclass(frozen=True, kw_only=True)
class Slow(Steady):
    """Trains everything, with dropout; takes its time while the zoo holds the file `slow`.

    It does not go on while there is a file `held`. The process of each step is noted in `steps`.
    """

    def insert(self, model):
        """Unfreeze everything."""
        model.unfreeze("parameter", lambda name, parameter: True)

    def on_step_end(self, model, step, steps):
        """Wait."""
        note("steps", os.getpid())
        while switched("held"):
            time.sleep(0.05)
        if switched("slow"):
            time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Leaves(Steady):
    """Ends its process, while the zoo holds the file `leaving`."""

    def on_step_end(self, model, step, steps):
        """Leave without a word."""
        if switched("leaving"):
            os._exit(3)


@dataclass(frozen=True, kw_only=True)
class Breaks(Steady):
    """Raises, while the zoo holds the file `broken`."""

    def compute_loss(self, model, batch):
        """Fail with more than one line."""
        if switched("broken"):
            raise RuntimeError("something broke\nand more about it")
        return super().compute_loss(model, batch)


@dataclass(frozen=True, kw_only=True)
class Hungry(Steady):
    """Has memory for so many examples at once."""

    room: int

    def compute_loss(self, model, batch):
        """Run out of memory as CUDA does."""
        if len(batch["labels"]) > self.room:
            raise torch.OutOfMemoryError(f"no room for more than {self.room}")
        return super().compute_loss(model, batch)


@dataclass(frozen=True, kw_only=True)
class Diverges(Steady):
    """Its loss is not a number from step 3 on."""

    def on_step_end(self, model, step, steps):
        """Spoil the head."""
        if step == 2:
            with torch.no_grad():
                for name, parameter in model.trained().items():
                    if model.in_head(name):
                        parameter.fill_(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Constant(Steady):
    """Predicts the first class throughout."""

    def predict(self, model, batch):
        """Say nothing about the input."""
        scores = torch.zeros(len(batch["labels"]), 2)
        scores[:, 0] = 1
        return {"scores": scores}


@dataclass(frozen=True, kw_only=True)
class Clocked(Steady):
    """Steps of a twentieth of a second, batches of an evaluation of a tenth."""

    def on_step_end(self, model, step, steps):
        """Wait as part of the step."""
        time.sleep(0.05)

    def predict(self, model, batch):
        """Wait outside the training."""
        time.sleep(0.1)
        return super().predict(model, batch)


@dataclass(frozen=True, kw_only=True)
class Wanders(Steady):
    """Changes the working folder, when it is inserted and at every step."""

    def insert(self, model):
        """Go to the root."""
        os.chdir("/")

    def on_step_end(self, model, step, steps):
        """Go to a folder that is removed."""
        (Path(os.environ["ZOO"]) / "gone").mkdir(exist_ok=True)
        os.chdir(Path(os.environ["ZOO"]) / "gone")
        (Path(os.environ["ZOO"]) / "gone").rmdir()


@dataclass(frozen=True, kw_only=True)
class Asks(Steady):
    """Asks a person whether to go on."""

    def on_step_end(self, model, step, steps):
        """Wait for an answer."""
        input("go on? ")


@dataclass(frozen=True, kw_only=True)
class Debugged(Steady):
    """Was left with a breakpoint."""

    def on_step_end(self, model, step, steps):
        """Open the debugger."""
        breakpoint()


@dataclass(frozen=True, kw_only=True)
class Lingers(Steady):
    """Takes its time before the first step, while the zoo holds the file `slow`."""

    def on_train_begin(self, model, batches):
        """Wait, when it is noted that a training starts."""
        super().on_train_begin(model, batches)
        while switched("slow"):
            time.sleep(0.05)


HUNGER = {"hungry": 4, "starved": 0}


def write_configs(folder):
    """Make a folder of configurations with an option for each method here."""
    methods = folder / "method"
    methods.mkdir(parents=True)
    kinds = {kind.__name__.lower(): kind.__name__ for kind in Steady.__subclasses__()}
    for name, kind in {"steady": "Steady", **kinds, "starved": "Hungry"}.items():
        text = f"_target_: zoo.{kind}\nname: {name}\nabout: misbehaves\nrecipe:\n  lr: 1e-3\n"
        if name in HUNGER:
            text += f"room: {HUNGER[name]}\n"
        (methods / f"{name}.yaml").write_text(text)
    return folder
