"""The machines that Ray has: which live, how many workers they hold, and calls into Ray that are not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from mosld_bench.errors import ResourceError
from mosld_bench.scheduling.ray_liveness import Calls, Liveness, Process, lost
from mosld_bench.scheduling.ray_places import host_and_port
from mosld_bench.spec.trial import Resources

T = TypeVar("T")

_LOOK_SECONDS = 5.0
_CLIENT = "ray://"


class Node(NamedTuple):
    """A machine of a cluster that Ray calls alive, with all that it has."""

    id: str
    process: Process
    gpus: float
    cpus: float


class Cluster:
    """The cluster that this process is connected to, of one machine or many. To be closed after use."""

    def __init__(self, ray: Any, address: str | None) -> None:
        """``ray``: the module, connected; ``address``: as it was joined, None where it was started here."""
        self._ray, self._looked, self._here = ray, 0.0, ""
        self._nodes: dict[str, Node] = {}
        self._direct = address is None or not address.startswith(_CLIENT)
        vital: dict[str, Process] = {}
        if self._direct:
            context = ray.get_runtime_context()
            vital["its head"] = Process(*host_and_port("", context.gcs_address))
            self.call: Callable[..., Any] = lambda function, *words, **options: function(*words, **options)
            self.look()
            if (here := self._nodes.get(context.get_node_id())) is not None:
                vital["its raylet on this machine"], self._here = here.process, here.id
        else:
            vital["its server"] = Process(*host_and_port("", str(address)))
        self._liveness = Liveness(vital)
        self._calls = Calls(self.lost)
        self.call = self._calls
        self.look()

    def close(self) -> None:
        """Look no more, and call no more."""
        self._calls.close()
        self._liveness.close()

    def lost(self) -> str | None:
        """Why nothing goes on any more, in words; None while it does."""
        if self._here and self._here not in self._nodes:
            return "its raylet on this machine is dead, as its head says"
        return self._liveness.lost()

    def look(self) -> None:
        """Ask Ray which machines there are."""
        found = self.call(self._ray.nodes)
        self._nodes = {node["NodeID"]: _node(node) for node in found if node["Alive"]}
        self._looked = time.monotonic()

    def look_now_and_then(self) -> None:
        """`look`, if the last time was seconds ago. Raises LostError where nothing goes on any more."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self.look()
            if self._direct:
                self._liveness.ask(node.process for node in self._nodes.values())
        self.check()

    def check(self) -> None:
        """Raises LostError where nothing goes on any more."""
        if (reason := self.lost()) is not None:
            raise lost(reason)

    def nodes(self) -> list[Node]:
        """The machines that live."""
        return [node for node in self._nodes.values() if not self._liveness.silent(node.process)]

    def has(self, node: str | None) -> bool:
        """Whether the machine of that id lives."""
        return node in self._nodes and not self._liveness.silent(self._nodes[node].process)


def _node(found: dict[str, Any]) -> Node:
    resources = found.get("Resources", {})
    process = Process(found["NodeManagerAddress"], found["NodeManagerPort"])
    return Node(found["NodeID"], process, resources.get("GPU", 0.0), resources.get("CPU", 0.0))


@dataclass(frozen=True)
class Room:
    """What a worker takes, and how many of them machines hold."""

    gpus_per_worker: float
    """0 where trials run on CPUs."""
    cpus_per_worker: float
    most: int
    """How many workers there are at most, however many machines come."""

    @property
    def on_gpus(self) -> bool:
        """Whether workers have GPUs."""
        return self.gpus_per_worker > 0

    @classmethod
    def of(cls, resources: Resources, nodes: Sequence[Node], *, gpus: float, cpus: float, trials: int) -> Room:
        """The room for ``trials``, each with ``resources``, where all together may use ``gpus`` and ``cpus``.

        A trial has fewer cores than it takes where no machine has so many: slower, and better than not at all. Raises
        ResourceError where no machine has its GPUs.
        """
        gpus_here, cpus_here = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
        if min(gpus, gpus_here):
            per_gpu = resources.gpus_per_trial
            most = min(trials, int(_ratio(gpus, per_gpu))) if gpus < gpus_here else trials
            shares = [(node.cpus, min(trials, _held(node.gpus, per_gpu))) for node in nodes]
            if not any(workers for _, workers in shares):
                largest = max(node.gpus for node in nodes)
                raise ResourceError(
                    f"A trial takes {per_gpu:g} GPUs (resources.gpus_per_trial), and no machine has more than "
                    f"{largest:g}."
                )
            share = min(node_cpus / workers for node_cpus, workers in shares if workers)
            return cls(per_gpu, min(resources.cpus_per_trial, share), max(1, most))
        per_worker = min(resources.cpus_per_trial, cpus, max((node.cpus for node in nodes), default=1.0) or 1.0)
        most = min(trials, int(_ratio(cpus, per_worker))) if cpus < cpus_here else trials
        return cls(0.0, per_worker, max(1, most))

    def workers(self, nodes: Sequence[Node]) -> int:
        """How many ``nodes`` hold, at least 1."""
        return max(1, self.held(nodes))

    def held(self, nodes: Sequence[Node]) -> int:
        """How many ``nodes`` hold."""
        held = 0
        for node in nodes:
            by_cpus = int(_ratio(node.cpus, self.cpus_per_worker)) if self.cpus_per_worker else self.most
            held += min(by_cpus, _held(node.gpus, self.gpus_per_worker)) if self.on_gpus else by_cpus
        return min(self.most, held)


def _ratio(whole: float, part: float) -> float:
    return whole / part + 1e-9


def _held(gpus: float, per_trial: float) -> int:
    """How many trials have room on a machine: one that takes a part of a GPU has it on a single one."""
    return int(gpus) * int(_ratio(1, per_trial)) if per_trial < 1 else int(_ratio(gpus, per_trial))
