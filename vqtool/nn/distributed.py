"""What the ranks of a training tell each other: sums, rows, flags, hashes. Alone, a process is rank 0 of 1.

Whether there is a process group (of torch.distributed) is asked at every call. Who calls, calls on every rank.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from vqtool.errors import StorageError, UsageError, VqtoolError, counted
from vqtool.ranks import launched

PATIENCE = timedelta(hours=1)  # rank 0 alone hashes the motion and fits codebooks, while the others wait


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is."""
    return dist.get_rank() if count() > 1 else 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Within it, be the rank that torchrun started this process as, if it did.

    An error names its rank, and a rank that is lost is a StorageError on the others.
    """
    number, ranks = launched()
    if ranks == 1 or count() > 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)  # of collectives without tensors, as `wait`
    try:
        dist.init_process_group(backend, timeout=PATIENCE, rank=number, world_size=ranks)
        yield
        dist.destroy_process_group()  # not after an error, where NCCL would wait for ranks that do not come
    except VqtoolError as error:
        error.what = f"rank {number} of {ranks}: {error.what}"
        raise
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        what = f"rank {number} of {ranks}: another rank ended or cannot be reached ({reason})"
        raise StorageError(f"{what}; what it or torchrun said tells why; go on with --resume") from error


def local_device(name: str) -> str:
    """What `pick_device` is asked for: the GPU of this rank, where torchrun started several and GPUs may be taken.

    Raises UsageError, on all ranks of a machine, where it has fewer GPUs than ranks.
    """
    if launched()[1] == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    ranks, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if ranks > gpus:
        what = f"this machine has {counted(gpus, 'GPUs')} for {counted(ranks, 'ranks')}"
        raise UsageError(f"{what}; start it with torchrun --nproc-per-node {gpus}, or add --device cpu")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def total(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum over all ranks of each of those tensors (of one type and device), in one exchange."""
    if count() == 1:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def rows(own: Tensor, numbers: Tensor) -> Tensor:
    """Rows [m, C], by number, of what all ranks have, `own` [n, C] of each end to end."""
    if count() == 1:
        return own[numbers]
    lengths = torch.zeros(count(), dtype=torch.int64, device=own.device)
    lengths[rank()] = len(own)
    dist.all_reduce(lengths)
    numbers = numbers - lengths[: rank()].sum()
    mine = (numbers >= 0) & (numbers < len(own))
    found = torch.zeros(len(numbers), *own.shape[1:], dtype=own.dtype, device=own.device)
    found[mine] = own[numbers[mine]]
    dist.all_reduce(found)  # all others add zeros
    return found


def highest(values: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each of those numbers on any rank."""
    if count() == 1:
        return list(values)
    found = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [int(value) for value in found.tolist()]


def differing(digest: bytes, device: torch.device) -> list[int]:
    """The ranks whose digest is not that of rank 0."""
    if count() == 1:
        return []
    own = torch.tensor(list(digest), dtype=torch.uint8, device=device)
    found = [torch.empty_like(own) for _ in range(count())]
    dist.all_gather(found, own)
    return [number for number, other in enumerate(found) if not other.equal(found[0])]


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give all ranks what rank 0 has in those tensors."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait() -> None:
    """Until all ranks are here."""
    if count() > 1:
        dist.barrier()
