"""What a server measures of itself, for Prometheus; no text and no label is in it."""

import os
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from lorafit.serving.batching import Batch

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Measures:
    """Counters and histograms of one server, or of all its processes where they share `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self._named: set[str] = set()
        self._requests = Counter("lorafit_requests", "Requests, by path and status", ["path", "status"], registry=own)
        self._latency = Histogram(
            "lorafit_request_seconds", "Time until the answer, by path", ["path"], buckets=_SECONDS, registry=own
        )
        self._texts = Counter("lorafit_texts", "Texts computed, by model", ["model"], registry=own)
        self._tokens = Counter("lorafit_tokens", "Tokens computed, without padding", registry=own)
        self._batch_texts = Histogram("lorafit_batch_texts", "Texts a batch", buckets=_SIZES, registry=own)
        self._batch_models = Histogram("lorafit_batch_models", "Models a batch", buckets=_SIZES, registry=own)
        self._batch_seconds = Histogram(
            "lorafit_batch_seconds", "Time to compute a batch", buckets=_SECONDS, registry=own
        )
        self._queue_seconds = Histogram("lorafit_queue_seconds", "Time a text waited", buckets=_SECONDS, registry=own)
        self._dropped = Counter("lorafit_dropped_texts", "Texts that nobody waited for any more", registry=own)
        self._cached = Counter("lorafit_cached_texts", "Texts answered from the cache", registry=own)
        self._waiting = Gauge("lorafit_queue_tokens", "Tokens that wait", registry=own, multiprocess_mode="livesum")
        self._models = Gauge("lorafit_models", "Models that are open", registry=own, multiprocess_mode="livemax")
        self._is_alone = "PROMETHEUS_MULTIPROC_DIR" not in os.environ

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is the route's, never a client's own."""
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def count_batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._dropped.inc(batch.dropped)
        self._waiting.set(batch.waiting)
        if not batch.models:
            return
        self._named.update(batch.models)
        for model in batch.models:
            self._texts.labels(model).inc()
        self._tokens.inc(batch.tokens)
        self._batch_texts.observe(len(batch.models))
        self._batch_models.observe(len(set(batch.models)))
        self._batch_seconds.observe(batch.seconds)
        for wait in batch.waits:
            self._queue_seconds.observe(wait)

    def count_cached(self, texts: int) -> None:
        """Count texts that were answered from the cache."""
        if texts:
            self._cached.inc(texts)

    def count_models(self, models: int) -> None:
        """Say how many models are open."""
        self._models.set(models)

    def write(self, *, waiting: int, models: Collection[str]) -> bytes:
        """Return all of it as Prometheus reads it.

        Args:
            waiting: Tokens in the queue.
            models: Names of the models that are open; what others were counted by is forgotten, where no other process
                counts it.

        Returns:
            Prometheus' text format.
        """
        self._waiting.set(waiting)
        if not self._is_alone:
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus_client says none
            return generate_latest(together)
        for name in self._named.difference(models):
            self._texts.remove(name)
        self._named.intersection_update(models)
        return generate_latest(self._registry)
