"""Counts refusals by owner and prints an alert if an owner is refused too often.

A consumer of importguard's events to copy: durable, handles each event once, continues the import's trace.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter, OrderedDict, deque

import nats
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

STREAM = "IMPORTGUARD"
SUBJECT = "importguard.v1.decision.*"
DURABLE = os.environ.get("CONSUMER", "refusals-python")
THRESHOLD = int(os.environ.get("ALERT_THRESHOLD", "5"))
WINDOW_SECONDS = float(os.environ.get("ALERT_WINDOW_SECONDS", "60"))


class Once:
    """Remembers the last IDs. NATS delivers at least once; all copies of an event have the same ID."""

    def __init__(self, most: int) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._most = most

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def add(self, event_id: str) -> None:
        self._ids[event_id] = None
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)


class Window:
    """Counts by name within a sliding window. Older entries are removed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def count(self, name: str) -> int:
        now = time.monotonic()
        while self._times and now - self._times[0][0] > self._seconds:
            _, oldest = self._times.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._times.append((now, name))
        self._counts[name] += 1
        return self._counts[name]


def start_tracing():
    """Exports spans to OTEL_EXPORTER_OTLP_ENDPOINT, if set (HTTP, protobuf)."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = os.environ.get("OTEL_SERVICE_NAME", "refusals-by-owner-python")
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def say(line: str) -> None:
    print(line, flush=True)


class Consumer:
    def __init__(self) -> None:
        self._seen = Once(100_000)
        self._refusals = Window(WINDOW_SECONDS)
        self._tracer = trace.get_tracer("refusals-by-owner")

    async def handle(self, message) -> None:
        """Handles a message, then acknowledges it: if the process dies in between, NATS delivers it again."""
        headers = message.headers or {}
        event_id = headers.get("Nats-Msg-Id", "")
        parent = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(
            f"process {message.subject}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": message.subject,
                "messaging.message.id": event_id,
            },
        ) as span:
            if event_id in self._seen:
                say(f"duplicate {event_id}")
            else:
                try:
                    event = json.loads(message.data)
                    self._judge(event)
                except (ValueError, KeyError, TypeError) as error:
                    # A retry would fail again.
                    span.set_status(StatusCode.ERROR, str(error))
                    say(f"no event: {error!r}")
                    await message.term()
                    return
                self._seen.add(event_id)
            await message.ack()

    def _judge(self, event: dict) -> None:
        # Unknown fields are ignored, as the contract requires.
        data = event["data"]
        if event["type"] != "importguard.decision.v1" or data["verdict"] != "refuse":
            return
        owner = data["ownerUserID"]
        count = self._refusals.count(owner)
        say(f"refusal owner={owner} count={count}")
        if count > THRESHOLD:
            say(f"ALERT owner={owner} refusals={count} within={WINDOW_SECONDS:g}s")


async def connect():
    async def troubled(error: Exception) -> None:
        say(f"trouble with NATS: {error!r}")

    return await nats.connect(
        os.environ.get("NATS_URL", "nats://127.0.0.1:4222").split(","),
        name="refusals-by-owner",
        user=os.environ.get("NATS_USER"),
        password=os.environ.get("NATS_PASSWORD"),
        user_credentials=os.environ.get("NATS_CREDS"),
        max_reconnect_attempts=-1,
        error_cb=troubled,
    )


async def subscribe(jetstream):
    # The gateway creates the stream: wait for it.
    while True:
        try:
            await jetstream.stream_info(STREAM)
            break
        except NotFoundError:
            say(f"waiting for the stream {STREAM}")
            await asyncio.sleep(1)
    # An event is delivered again if it is not acknowledged within `ack_wait` seconds.
    config = ConsumerConfig(ack_wait=30)
    return await jetstream.pull_subscribe(SUBJECT, durable=DURABLE, stream=STREAM, config=config)


async def consume(client) -> None:
    consumer = Consumer()
    subscription = await subscribe(client.jetstream())
    say(f"ready: consumer {DURABLE} on {STREAM}")
    while True:
        try:
            messages = await subscription.fetch(batch=100, timeout=5)
        except (nats.errors.TimeoutError, nats.js.errors.APIError, nats.errors.ConnectionReconnectingError):
            continue
        for message in messages:
            await consumer.handle(message)


async def main() -> None:
    provider = start_tracing()
    client = await connect()
    consuming = asyncio.create_task(consume(client))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, consuming.cancel)
    try:
        await consuming
    except asyncio.CancelledError:
        pass
    finally:
        await client.drain()
        if provider:
            provider.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
