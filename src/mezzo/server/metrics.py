"""The server's Prometheus metrics. docs/metrics.md explains each; a test holds the two together.

Everything lives in a registry that is passed in: two servers in one process do not share counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mezzo import __version__
from mezzo.backends.router import Router
from mezzo.metering.books import Books
from mezzo.metering.limits import RateLimiter
from mezzo.server.queues import Queues

# Seconds. A first token takes from a cache hit on a fast device to a long prompt in a full queue.
_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_ITL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5)
_DURATION_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The counts of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "mezzo_requests",
            "Requests answered, by route, model that answered and status; 499: the client left unanswered.",
            ["route", "model", "status"],
            registry=registry,
        )
        self._duration = Histogram(
            "mezzo_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "model"],
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "mezzo_requests_in_flight", "Requests that are being answered.", registry=registry
        )
        self._outcomes = Counter(
            "mezzo_chat_outcomes",
            "Chat requests by how they ended: finished, aborted by the client, failed, refused.",
            ["model", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "mezzo_tokens",
            "Tokens by kind: prompt (cached ones included), cached, completion.",
            ["model", "kind"],
            registry=registry,
        )
        self._ttft = Histogram(
            "mezzo_time_to_first_token_seconds",
            "From the first byte of a request to its first completion token.",
            ["model"],
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self._itl = Histogram(
            "mezzo_inter_token_latency_seconds",
            "Between two tokens of one choice; an event of several tokens counts once, with their mean.",
            ["model"],
            buckets=_ITL_BUCKETS,
            registry=registry,
        )

    def count_request(self, *, route: str, model: str, status: int, outcome: str, duration_s: float) -> None:
        """Count an exchange that is over. `model` is a card's id, or empty when none was found."""
        self._requests.labels(route, model, str(status)).inc()
        self._duration.labels(route, model).observe(duration_s)
        if model:
            self._outcomes.labels(model, outcome).inc()

    def count_tokens(self, model: str, *, prompt: int, cached: int, completion: int) -> None:
        """Count the tokens of one request; `cached` ones are a part of `prompt`."""
        self._tokens.labels(model, "prompt").inc(prompt)
        self._tokens.labels(model, "cached").inc(cached)
        self._tokens.labels(model, "completion").inc(completion)

    def observe_first_token(self, model: str, seconds: float) -> None:
        """Note the time to the first token of a request."""
        self._ttft.labels(model).observe(seconds)

    def observe_gap(self, model: str, seconds_per_token: float) -> None:
        """Note the time between tokens of a choice."""
        self._itl.labels(model).observe(seconds_per_token)


class BackendCollector(Collector):
    """Asks the backends for their numbers at the moment of a scrape, so that no copy can go stale."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def collect(self) -> Iterator[Metric]:
        """Return the families of metrics about backends and their engines."""
        ready = GaugeMetricFamily(
            "mezzo_backend_ready", "Whether a request would start at once (1) or not (0).", labels=["weights"]
        )
        waiting = GaugeMetricFamily(
            "mezzo_sequences_waiting", "Sequences that wait for a place in the batch.", labels=["weights"]
        )
        running = GaugeMetricFamily(
            "mezzo_sequences_running", "Sequences in the running batch.", labels=["weights"]
        )
        blocks = GaugeMetricFamily("mezzo_kv_cache_blocks", "Blocks of the KV cache.", labels=["weights"])
        used = GaugeMetricFamily(
            "mezzo_kv_cache_used_blocks", "Blocks of the KV cache that sequences hold.", labels=["weights"]
        )
        preemptions = CounterMetricFamily(
            "mezzo_preemptions", "Sequences that gave their blocks back and wait again.", labels=["weights"]
        )
        restarts = CounterMetricFamily(
            "mezzo_engine_restarts", "Times an engine process was started again.", labels=["weights"]
        )
        images = CounterMetricFamily(
            "mezzo_images",
            "Images of prompts: whose encoding was there already (hit), and that were encoded (miss).",
            labels=["weights", "cache"],
        )
        drafts = CounterMetricFamily(
            "mezzo_draft_tokens",
            "Guessed tokens that were checked, and whether they held.",
            labels=["weights", "result"],
        )
        prefixes = CounterMetricFamily(
            "mezzo_prefix_cache_requests",
            "Requests with a prompt whose beginning was in the KV cache (hit), and others (miss).",
            labels=["weights", "cache"],
        )
        cached_tokens = CounterMetricFamily(
            "mezzo_prefix_cache_tokens", "Tokens of prompts that were in the KV cache.", labels=["weights"]
        )
        for backend in self._router.backends:
            labels = [backend.info.name]
            ready.add_metric(labels, float(backend.is_ready))
            stats = backend.stats()
            waiting.add_metric(labels, stats.num_waiting)
            running.add_metric(labels, stats.num_running)
            blocks.add_metric(labels, stats.num_blocks)
            used.add_metric(labels, stats.num_blocks - stats.num_free_blocks)
            preemptions.add_metric(labels, stats.num_preemptions)
            restarts.add_metric(labels, stats.num_restarts)
            drafts.add_metric([*labels, "accepted"], stats.num_accepted_tokens)
            drafts.add_metric([*labels, "rejected"], stats.num_draft_tokens - stats.num_accepted_tokens)
            images.add_metric([*labels, "hit"], stats.num_image_hits)
            images.add_metric([*labels, "miss"], stats.num_image_misses)
            prefixes.add_metric([*labels, "hit"], stats.num_prefix_hits)
            prefixes.add_metric([*labels, "miss"], stats.num_prefix_misses)
            cached_tokens.add_metric(labels, stats.num_cached_tokens)
        yield from (ready, waiting, running, blocks, used, preemptions, restarts, drafts, images)
        yield from (prefixes, cached_tokens)


class BooksCollector(Collector):
    """Asks queues, limits and books at the moment of a scrape."""

    def __init__(self, router: Router, queues: Queues, books: Books, limiter: RateLimiter) -> None:
        self._router = router
        self._queues = queues
        self._books = books
        self._limiter = limiter

    def collect(self) -> Iterator[Metric]:
        """Return the families of metrics about what surrounds the backends."""
        waiting = GaugeMetricFamily(
            "mezzo_requests_waiting",
            "Requests that wait for their turn before a backend.",
            labels=["weights"],
        )
        for backend in self._router.backends:
            waiting.add_metric([backend.info.name], self._queues.of(backend).num_waiting)
        yield waiting
        yield GaugeMetricFamily(
            "mezzo_books_open_requests",
            "Requests that this server entered in the books and has not ended there.",
            value=self._books.num_open,
        )
        yield GaugeMetricFamily(
            "mezzo_books_failing",
            "Whether the last entry could not be written (1), and requests are refused (0: all is well).",
            value=float(self._books.is_failing),
        )
        yield GaugeMetricFamily(
            "mezzo_limits_degraded",
            "Whether servers that should count limits together count each for itself (1).",
            value=float(self._limiter.is_degraded),
        )


def make_metrics(router: Router) -> Metrics:
    """Return the metrics of a server, in a registry of their own."""
    registry = CollectorRegistry()
    registry.register(BackendCollector(router))
    Gauge(
        "mezzo_build_info", "Always 1; the label tells the version.", ["version"], registry=registry
    ).labels(__version__).set(1)
    return Metrics(registry)
