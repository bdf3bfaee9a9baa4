"""Checkpoints: what a long training leaves from time to time, so that a trial that is broken off goes on from there.

One file, ``results/STUDY/TRIAL/.checkpoint.safetensors``: tensors, and JSON in its header, no pickle. It is written
whole or not at all by the process that trains, read by the next one that runs the same trial, and removed when the
record is written (`records.store.Store.write`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mosld_bench.errors import BenchError, first_line
from mosld_bench.records.provenance import source_digest, versions
from mosld_bench.records.store import Store
from mosld_bench.scratch import replace_file
from mosld_bench.spec.trial import Fit, Trial, canonical

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mosld_bench.inputs.items import Encoded
    from mosld_bench.methods.base import Method
    from mosld_bench.trial.router_log import RouterLog

#: Of a training's time checkpoints take this share at most, however short the time between two of them is set.
MOST_SHARE = 0.05
_ROUTERS = "routers/"


@dataclass(frozen=True)
class CheckpointPlace:
    """Where the trials of a study leave checkpoints, and how often at most: plain data, the same on every node.

    The driver marks the folder while it runs, by which a worker on another machine knows whether it reaches it.
    """

    results: str
    study: str
    seconds: float
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def mark(self) -> None:
        """To be called by the driver, before trials run."""
        file = self._mark
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, self.token.encode())

    def unmark(self) -> None:
        """To be called by the driver when no trial runs any more."""
        if self.is_reached():
            self._mark.unlink(missing_ok=True)

    def is_reached(self) -> bool:
        """Whether this process sees the folder that the driver marked."""
        with suppress(OSError):
            return self._mark.read_bytes() == self.token.encode()
        return False

    @property
    def _mark(self) -> Path:
        return Path(self.results) / self.study / ".reached"

    def file(self, trial: Trial) -> Path:
        """The checkpoint of a trial."""
        return Store(Path(self.results)).checkpoint_file(trial)


class Noted(Protocol):
    """A part of a training that JSON holds."""

    def notes(self) -> dict[str, Any]:
        """What it has come to."""

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Set what `notes` gave."""


class Moving(NamedTuple):
    """All that moves while a model trains. ``model`` is ``method`` on a copy of ``base``."""

    model: nn.Module
    base: nn.Module
    method: Method
    optimizer: torch.optim.Optimizer
    parts: Mapping[str, Noted]
    routers: RouterLog | None


class Checkpoints:
    """The checkpoint of one trial. ``from_step`` is the step that it went on from, 0 where it began anew.

    ``identity`` says of what it is, when it is first needed; one of another trial, code or data is not gone on with.
    ``every_seconds``: the least time between two. ``say`` is told what the user should know.
    """

    def __init__(
        self, file: Path, identity: Callable[[], str], *, every_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._file, self._make_identity, self._every, self._say = file, identity, every_seconds, say
        self._identity: str | None = None
        self._last, self._cost, self._written = time.monotonic(), 0.0, False
        self.from_step = 0

    @property
    def identity(self) -> str:
        """Of what the checkpoint is; equal only for the same training."""
        if self._identity is None:
            self._identity = self._make_identity()
        return self._identity

    def resume(self, moving: Moving) -> int:
        """Put the last checkpoint into ``moving``. Returns the step that it was made after; 0 where there is none.

        Raises BenchError where it is damaged in a way that shows only while it is put back; it is removed then.
        """
        from mosld_bench.methods.training_state import MismatchError, TrainingState, below, put_back

        content = self._read()
        if content is None:
            return 0
        notes, tensors = content
        try:
            put_back(TrainingState(tensors, notes["state"]), *moving[:4])
            for name, part in moving.parts.items():
                part.restore(notes["parts"][name])
            if moving.routers is not None:
                moving.routers.restore(notes["routers"], dict(below(_ROUTERS, tensors)))
            step = int(notes["step"])
        except MismatchError as error:
            self._say(f"begins anew, since its checkpoint is of another training: {error}")
            return 0
        except Exception as error:
            self.drop()
            raise BenchError(
                f"The checkpoint {self._file} cannot be put back ({type(error).__name__}: {first_line(error)}). It was "
                f"removed, so that the trial begins anew when it is run again."
            ) from error
        self.from_step, self._written = step, True
        self._say(f"goes on from its checkpoint after step {step}")
        return step

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        from safetensors import SafetensorError, safe_open

        if not self._file.is_file():
            return None
        try:
            with safe_open(self._file, "pt") as file:
                header = file.metadata() or {}
                if header.get("identity") != self.identity:
                    self._say("begins anew, since its checkpoint is of other code, settings or data")
                    return None
                return json.loads(header["notes"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            self._say(f"begins anew, since its checkpoint cannot be read ({first_line(error)})")
            return None

    def after(self, step: int, moving: Moving, *, last: bool) -> float:
        """Write a checkpoint where one is due. Returns the seconds that it took.

        ``last``: whether the training is over, after which there is one more where there was one before: scoring may be
        broken off as well.
        """
        started = time.monotonic()
        due = started - self._last >= max(self._every, self._cost / MOST_SHARE)
        if not due and not (last and self._written):
            return 0.0
        self._write(step, moving)
        self._last = time.monotonic()
        self._cost = self._last - started
        return self._cost

    def _write(self, step: int, moving: Moving) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        from mosld_bench.methods.training_state import taken

        state = taken(*moving[:4])
        if state is None:
            self._every = float("inf")
            self._say("no checkpoints: its method does not say what it keeps from step to step (training_state)")
            return
        routers, sums = ([], {}) if moving.routers is None else moving.routers.state()
        tensors = state.tensors | {_ROUTERS + name: value.cpu().clone() for name, value in sums.items()}
        notes = {
            "step": step,
            "state": state.notes,
            "parts": {name: part.notes() for name, part in moving.parts.items()},
            "routers": routers,
        }
        aside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside, metadata={"identity": self.identity, "notes": json.dumps(notes)})
            with aside.open("rb+") as written:
                os.fsync(written.fileno())
            aside.replace(self._file)
        except (OSError, SafetensorError) as error:  # a full disk is no reason to end the trial
            self._say(f"no checkpoint could be written to {self._file.parent} ({first_line(error)})")
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        else:
            self._written = True

    def drop(self) -> None:
        """Remove the checkpoint, if there is one."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def checkpoints_of(
    place: CheckpointPlace | None, trial: Trial, identity: Callable[[], str], notes: list[str]
) -> Checkpoints | None:
    """Those of ``trial`` in ``place``; None where none are wanted, or this machine does not reach it.

    What the user should know is added to ``notes``, then and later.
    """
    if place is None:
        return None
    if not place.is_reached():
        notes.append(
            f"no checkpoints: {socket.gethostname()} does not reach {place.results}, so that a trial that is broken "
            f"off there begins anew"
        )
        return None

    def say(text: str) -> None:
        notes.append(f"{trial.id}: {text}")

    return Checkpoints(place.file(trial), identity, every_seconds=place.seconds, say=say)


def identity_of(
    trial: Trial, fit: Fit, *, code: Mapping[str, Any], weights: Any, device: str, items: Iterable[Encoded]
) -> str:
    """A digest of all that a training comes of: the trial, its size, code and libraries, weights, device and items."""
    digest = hashlib.sha256()
    content = {
        "trial": trial.id,
        "rivals": trial.rivals,
        "fit": fit.model_dump(mode="json"),
        "method": code,
        "source": source_digest(),
        "versions": versions(trial.model.load),
        "weights": weights,
        "device": device.partition(":")[0],
    }
    digest.update(canonical(content).encode())
    for item in items:
        digest.update(f"{item.task}:{item.answer}:{item.shared}:{len(item.ids)}\n".encode())
        digest.update(array("q", item.ids).tobytes())
    return digest.hexdigest()
