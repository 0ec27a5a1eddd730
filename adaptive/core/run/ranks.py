"""Processes that share the work of one run, as ``torchrun`` starts them.

One process needs nothing of this: :class:`Ranks` without arguments is rank 0 of 1, and every
method does nothing. Values travel as JSON, never pickled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptive.core.errors import UserError
from adaptive.core.run.environment import resolve_device

if TYPE_CHECKING:
    import torch


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
            chosen, backend = f"cuda:{local}", "nccl"
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            dist.init_process_group(backend, rank=rank, world_size=world)
        return Ranks(rank, world, chosen)

    @property
    def main(self) -> bool:
        """True in the one process that writes shared files and talks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all others."""
        # A sum that everyone must read: NCCL's own barrier guesses the device.
        self.sum(1.0)

    def sum(self, value: float) -> float:
        """Sum over all processes of a number of each."""
        if self.world == 1:
            return value
        import torch

        # Gloo and NCCL both add in double precision.
        return float(self.sum_tensor(torch.tensor(value, dtype=torch.float64)).item())

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all processes of a tensor of each, on this process's device."""
        if self.world == 1:
            return tensor
        import torch.distributed as dist

        total = tensor.detach().clone().to(self.device)
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
        buffer = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.main:
            buffer.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return json.loads(bytes(buffer.tolist()).decode())

    def leave(self) -> None:
        """Ends the connection to the others, at the end of the program."""
        if self.world > 1:
            import torch.distributed as dist

            dist.destroy_process_group()
