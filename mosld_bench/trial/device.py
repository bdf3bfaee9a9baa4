"""What work on a device takes: time, memory, and the rate of a core. One interface for CPU and CUDA."""

from __future__ import annotations

import ctypes
import errno
import gc
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mosld_bench.compat.torch import bfloat16_products

#: A timed stretch lasts as long at least; below, the clock's own cost and the scheduler's slices show.
_LEAST_SECONDS = 0.1


class Clock:
    """Marks in time and the seconds between them: CUDA events on a GPU, whose work runs on after the call returns."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def mark(self) -> Any:
        """This moment; on a GPU the moment at which it has done what it was given so far."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, first: Any, last: Any) -> float:
        """Seconds from mark to mark. Waits for the GPU."""
        if not self.cuda:
            return float(last - first)
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3  # milliseconds

    def seconds(self, work: Callable[[], object], least: float = _LEAST_SECONDS) -> float:
        """Seconds of one call of ``work``: of one that takes ``least`` seconds or more, else the mean of many."""
        first = self.mark()
        work()
        once = self.between(first, self.mark())
        if once >= least:
            return once
        calls = min(1000, int(least / max(once, 1e-6)) + 1)
        first = self.mark()
        for _ in range(calls):
            work()
        return self.between(first, self.mark()) / calls


class PeakMemory:
    """Largest memory of a stretch of work: ``peak`` bytes when the block ends, by CUDA's own count, else sampled.

    On a CPU the whole process counts (`resident`). ``every``: seconds between two samples; a peak that is shorter may
    be missed.
    """

    def __init__(self, device: str, every: float = 0.05) -> None:
        self.cuda, self.every = device.startswith("cuda"), every
        self.peak = 0
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            for gpu in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(gpu)
        else:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.cuda:
            self.peak = sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, resident())
            if self._stop.wait(self.every):
                return


def cores() -> int:
    """Cores that this process may use: fewer than the machine has inside a job of a cluster, or a container."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(there, cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that the control groups of this process grant; infinite where they set no limit.

    ``root``: where /proc and /sys are. Of the second version of control groups every group above counts as well; of
    the first the one that a container sees as its own.
    """
    groups = root / "sys/fs/cgroup"
    limits = [_read(groups / "cpu/cpu.cfs_quota_us") + " " + _read(groups / "cpu/cpu.cfs_period_us")]
    lines = _read(root / "proc/self/cgroup").splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = groups / own
    for place in (group, *group.parents):
        if place == groups.parent:
            break
        limits.append(_read(place / "cpu.max"))
    shares = [limit.split() for limit in limits]
    return min(
        (int(s[0]) / int(s[1]) for s in shares if len(s) == 2 and s[0].isdigit() and s[1].isdigit() and int(s[1])),
        default=math.inf,
    )


def core_rate(dtype: str) -> float:
    """FLOP/s at which one core of this machine multiplies matrices of ``dtype``, which bounds a trial on it."""
    with threads(1), bfloat16_products(dtype, "cpu"):
        matrix = torch.ones(512, 512, dtype=getattr(torch, dtype))
        return 2 * 512**3 / Clock("cpu").seconds(lambda: matrix @ matrix)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resident() -> int:
    """Bytes of this process that are in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def taken(device: str) -> int:
    """Bytes that this process takes now: on GPUs what torch has allocated there, else what of it is in memory."""
    return sum(_allocated()) if device.startswith("cuda") else resident()


def _allocated() -> list[int]:
    """Bytes that torch has allocated on each GPU that this process sees."""
    return [int(torch.cuda.memory_allocated(gpu)) for gpu in range(torch.cuda.device_count())]


def gpus_of(model: nn.Module) -> list[int]:
    """The GPUs that weights of ``model`` are on; none for a model on the CPU."""
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    return sorted(device.index for device in devices)


def release(device: str) -> None:
    """Give back what is no longer used, so that the next measurement starts from what is."""
    gc.collect()
    trim(device)


def trim(device: str) -> None:
    """Give back memory that was freed but is kept for later: activations, above all."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif sys.platform == "linux":  # a worker would stay a gigabyte larger after training
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if malloc_trim is not None:
            malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out; torch has a class for a GPU's, and only a text for a CPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY)


#: How the allocator of a CPU and the libraries of a GPU say it.
_OUT_OF_MEMORY = ("defaultcpuallocator", "out of memory", "cublas_status_alloc_failed")


def may_pass(error: BaseException) -> bool:
    """Whether another try, in another process, may go well: of want of memory, a device or a file system that failed.

    What a library made of such an error counts as well.
    """
    seen: BaseException | None = error
    while seen is not None:
        if is_out_of_memory(seen) or isinstance(seen, ConnectionError | TimeoutError):
            return True
        if isinstance(seen, OSError) and seen.errno in _PASSING:
            return True
        if isinstance(seen, RuntimeError) and "cuda error" in str(seen).lower():
            return True
        seen = seen.__cause__ or seen.__context__
    return False


#: Errors of a file system over a network, or of a machine that is short of something for a while.
_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE})


def available(device: str) -> int:
    """Bytes that can still be taken: free ones of the GPU; of the machine, within the limit of this container.

    Of several GPUs that this process uses, those of the fullest.
    """
    if device.startswith("cuda"):
        gpus = [gpu for gpu, bytes_ in enumerate(_allocated()) if bytes_] or [0]
        return min(int(torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = _read("/proc/meminfo").splitlines()
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), free)
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return free
    stat = dict(line.split() for line in _read("/sys/fs/cgroup/memory.stat").splitlines())
    files = int(stat.get("inactive_file", 0))  # counted as used, but given up to whoever needs it
    return min(free, int(limit) - int(used) + files)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
