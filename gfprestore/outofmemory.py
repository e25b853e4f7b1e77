"""Running out of memory: what torch and its libraries call it, and what the user is told."""

from __future__ import annotations

from gfprestore.errors import DeviceError

WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
    "CUDA error: out of memory",  # by another process, or while pinning
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # a convolution whose workspace does not fit
)
"""What errors say that are of no class of their own."""


class OutOfMemoryError(DeviceError):
    """Not even one item fits into the device's memory; a caller that cuts its items smaller can try again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory is full, and less of it may do."""
    import torch  # here and below, since most runs on the processor do without it

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
    )


def empty_cache(device: str) -> None:
    """Give back what torch holds of a GPU's memory without using it; call it outside the handler of the error."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def out_of_memory(device: str) -> OutOfMemoryError:
    """The error of a batch of one that does not fit."""
    return OutOfMemoryError(
        f"The memory of {device} does not hold even one item at a time: "
        "close other programs, lower --batch-size, or take another --device."
    )
