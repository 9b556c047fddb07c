"""Reading ahead in threads of the training process."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ssl_framework.data.stream import BatchStream
from ssl_framework.data.threads import spread
from ssl_framework.types import Batch

_AT_ONCE = 2  # batches that are read while one is used: the next is decoded while the last rows of this one are


class ReadAhead:
    """The batches of a stream, in its order, read by threads before they are asked for.

    Args:
        stream: the batches.
        threads: that read samples.
        pin: put images into memory that a GPU copies from without waiting.
    """

    def __init__(self, stream: BatchStream, threads: int, pin: bool = False) -> None:
        self.stream = stream
        self.threads = threads
        self.pin = pin

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(self.threads) as samples, ThreadPoolExecutor(_AT_ONCE) as batches:
            waiting: deque[Future[Batch]] = deque()
            try:
                for k in self.stream.numbers():
                    waiting.append(batches.submit(self._batch, k, samples))
                    if len(waiting) > _AT_ONCE:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for batch in waiting:
                    batch.cancel()

    def _batch(self, k: int, samples: ThreadPoolExecutor) -> Batch:
        batch = self.stream.batch(k, lambda read, rows: spread(samples, read, rows))
        if not self.pin:
            return batch
        crops = batch.crops
        if crops is not None:
            local = None if crops.local_crops is None else crops.local_crops.pin_memory()
            crops = crops._replace(global_crops=crops.global_crops.pin_memory(), local_crops=local)
        return batch._replace(input=batch.input.pin_memory(), crops=crops)
