"""A cache whose answers are changed, or looked at, on their way out."""

from collections.abc import Callable

from torch import Tensor

from magbench.runners.policies.base import Chunk, LayerCache, Past


class WrappedCache(LayerCache):
    def __init__(self, inner: LayerCache, change: Callable[[Past], Past]) -> None:
        self.inner, self.change = inner, change

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        return self.change(self.inner.past(chunk, q, k))

    def commit(self, chunk: Chunk, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.inner.commit(chunk, q, k, v)

    @property
    def frames(self) -> float:
        return self.inner.frames

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes
