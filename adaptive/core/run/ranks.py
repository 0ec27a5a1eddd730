"""Processes that share the work of one run, as ``torchrun`` starts them.

One process needs nothing of this: :class:`Ranks` without arguments is rank 0 of 1, and every
method does nothing. Values travel as JSON, never pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from adaptive.core.errors import UserError
from adaptive.core.run.environment import resolve_device

if TYPE_CHECKING:
    import torch

LOST = re.compile(r"connection|closed by peer|reset by peer|broken pipe|timed out|socket", re.I)
"""What the transports say of a process that is gone."""

PATIENCE = timedelta(days=7)
"""How long a process waits for others: stages that one of them does alone take hours."""


class LostRank(UserError):
    """Another process of the run has stopped."""


def rank_of_environment() -> int:
    """Number of this process; 0 where ``torchrun`` has not started it. Needs no torch."""
    return int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: number of this process; rank 0 is the main one, which alone writes shared files.
        world: how many there are.
        device: torch device of this process.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @staticmethod
    def here(device: str = "auto") -> Ranks:
        """Joins the processes that ``torchrun`` announces in the environment, if there are any.

        Args:
            device: as in ``TaskConfig.device``; on GPUs each local process takes its own.

        Raises:
            UserError: more local processes than GPUs, or half of torchrun's environment.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return Ranks(device=resolve_device(device))
        missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
        if missing:
            raise UserError(
                f"WORLD_SIZE={world} without {', '.join(missing)}: start the run with torchrun, "
                "or unset WORLD_SIZE"
            )
        import torch
        import torch.distributed as dist

        rank = int(os.environ["RANK"])
        local = int(os.environ.get("LOCAL_RANK", rank))
        chosen = resolve_device(device)
        backend = "gloo"
        if chosen.startswith("cuda"):
            if local >= torch.cuda.device_count():
                raise UserError(
                    f"torchrun started local process {local}, but there are "
                    f"{torch.cuda.device_count()} GPUs: lower --nproc_per_node, or set device=cpu"
                )
            # Tensors of the CPU go through gloo, on which to wait for hours costs nothing.
            chosen, backend = f"cuda:{local}", "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            with _told():
                dist.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
        return Ranks(rank, world, chosen)

    @property
    def main(self) -> bool:
        """True in the one process that writes shared files and talks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all others."""
        self.sum(1.0)  # which everyone must read; NCCL's own barrier guesses the device

    def sum(self, value: float) -> float:
        """Sum over all processes of a number of each."""
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        total = torch.tensor(value, dtype=torch.float64)
        with _told():
            dist.all_reduce(total)
        return float(total)

    def max(self, value: float) -> float:
        """Largest of a number of each process."""
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        largest = torch.tensor(value, dtype=torch.float64)
        with _told():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all processes of a tensor of each, on this process's device."""
        if self.world == 1:
            return tensor
        import torch.distributed as dist

        total = tensor.detach().clone().to(self.device)
        with _told():
            dist.all_reduce(total)
        return total

    def broadcast(self, value: Any = None) -> Any:
        """The main process's JSON-able value, in all of them."""
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.main else b""
        size = int(self.sum(float(len(text))))
        buffer = torch.zeros(size, dtype=torch.uint8)
        if self.main:
            buffer.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        with _told():
            dist.broadcast(buffer, 0)
        return json.loads(bytes(buffer.tolist()).decode())

    def send(self, tensor: torch.Tensor, to: int) -> None:
        """Sends a tensor of this process's device to another process."""
        import torch.distributed as dist

        tensor = tensor.contiguous()
        with _told():
            dist.send(tensor, to)

    def receive(self, shape: Sequence[int], dtype: torch.dtype, source: int) -> torch.Tensor:
        """A tensor that another process sends, on this process's device."""
        import torch
        import torch.distributed as dist

        tensor = torch.empty(*shape, dtype=dtype, device=self.device)
        with _told():
            dist.recv(tensor, source)
        return tensor

    def leave(self) -> None:
        """Ends the connection to the others, at the end of the program."""
        if self.world > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


@contextlib.contextmanager
def no_teardown() -> Iterator[None]:
    """Around all that a program does: one of several processes ends where the block does.

    FSDP's groups outlive :meth:`Ranks.leave`, and with them gloo's threads. One that lets go of its
    last tensor while Python is torn down aborts the process (pytorch/pytorch#179291), and torchrun
    counts a finished run as failed. Errors other than ``SystemExit`` pass, as does everything where
    ``torchrun`` has not started the process.
    """
    several, code = "WORLD_SIZE" in os.environ, 0
    try:
        yield
    except SystemExit as end:
        if not several or not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    if several:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raises :class:`LostRank` where the other end of a connection is gone."""
    try:
        yield
    except RuntimeError as error:
        if not (type(error).__name__.startswith("Dist") or LOST.search(str(error))):
            raise  # of memory, or a mistake of ours
        raise LostRank(
            "another process of this run has stopped: run the same command in the same directory "
            f"to go on ({str(error).splitlines()[0]})"
        ) from error


def shares(costs: Sequence[float], world: int) -> list[range]:
    """Consecutive items for each process, so that the dearest share costs least.

    Args:
        costs: of each item, not negative.
        world: processes; those for which there is nothing left come last.
    """

    if not costs:
        return [range(0)] * world

    def cut(limit: float) -> list[range] | None:
        found, begin, total = [], 0, 0.0
        for i, cost in enumerate(costs):
            if i > begin and total + cost > limit:
                found.append(range(begin, i))
                begin, total = i, 0.0
            total += cost
        found.append(range(begin, len(costs)))
        return found if len(found) <= world else None

    # The best limit is the cost of some run of items: sums of all runs, tried in order.
    sums = {sum(costs[a:b]) for a in range(len(costs)) for b in range(a + 1, len(costs) + 1)}
    best = next(found for limit in sorted(sums) if (found := cut(limit)) and limit >= max(costs))
    return best + [range(len(costs), len(costs))] * (world - len(best))
