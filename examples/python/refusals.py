"""Counts refusals by owner and prints an alert if an owner is refused too often.

A consumer of importguard's events to copy: durable, handles each event once, continues the import's trace.
"""

import asyncio
import contextlib
import heapq
import json
import os
import signal
import sys
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import datetime

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

# What the client raises when NATS is away. Timeouts are among them.
TROUBLE = (nats.errors.Error, OSError)


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
    """Counts by name within a sliding window of the events' own time, so that old events, read late, raise no alert."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._newest = 0.0
        self._times: list[tuple[float, str]] = []
        self._counts: Counter[str] = Counter()

    def count(self, name: str, at: float) -> int:
        """Adds one for `name` at the Unix time `at` and returns its count; 0 if that was before the window."""
        # A clock that is ahead must not make all other events old.
        self._newest = max(self._newest, min(at, time.time()))
        oldest = self._newest - self._seconds
        while self._times and self._times[0][0] < oldest:
            _, forgotten = heapq.heappop(self._times)
            self._counts[forgotten] -= 1
            if not self._counts[forgotten]:
                del self._counts[forgotten]
        if at < oldest:
            return 0
        heapq.heappush(self._times, (at, name))
        self._counts[name] += 1
        return self._counts[name]


@dataclass
class Event:
    """The fields that we need. Unknown fields are ignored, as the contract requires."""

    id: str
    type: str
    # When the decision was made, in Unix seconds.
    time: float
    owner: str
    verdict: str | None

    @staticmethod
    def parse(text: bytes) -> "Event":
        event = json.loads(text)
        if not isinstance(event["id"], str):
            raise TypeError("an event without an ID")
        return Event(
            # The header Nats-Msg-Id has it too, but NATS takes messages without headers.
            id=event["id"],
            type=event["type"],
            time=datetime.fromisoformat(event["time"]).timestamp(),
            owner=str(event["data"]["ownerUserID"]),
            verdict=event["data"].get("verdict"),
        )


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
            },
        ) as span:
            try:
                event = Event.parse(message.data)
            except Exception as error:
                # Whatever it is, such as a RecursionError: a retry would fail again.
                span.set_status(StatusCode.ERROR, str(error))
                say(f"no event: {error!r}")
                await message.term()
                return
            span.set_attribute("messaging.message.id", event.id)
            if event.id in self._seen:
                say(f"duplicate {json.dumps(event.id)}")
            else:
                self._judge(event)
                self._seen.add(event.id)
            await message.ack()

    def _judge(self, event: Event) -> None:
        if event.type != "importguard.decision.v1" or event.verdict != "refuse":
            return
        count = self._refusals.count(event.owner, event.time)
        # As a JSON string: an ID may contain line breaks, and must not look like a line of its own.
        owner = json.dumps(event.owner)
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


async def consume(subscription, consumer: Consumer) -> None:
    while True:
        try:
            messages = await subscription.fetch(batch=100, timeout=5)
        except asyncio.TimeoutError:
            messages = []
        for message in messages:
            await consumer.handle(message)
        if not messages:
            # No event, or the consumer was deleted, for example with the stream: then this raises an error.
            await subscription.consumer_info()


async def run() -> None:
    client = await connect()
    consumer = Consumer()
    try:
        while True:
            try:
                subscription = await subscribe(client.jetstream())
                say(f"ready: consumer {DURABLE} on {STREAM}")
                try:
                    await consume(subscription, consumer)
                finally:
                    with contextlib.suppress(*TROUBLE):
                        await subscription.unsubscribe()
            except TROUBLE as error:
                if client.is_closed:
                    raise
                say(f"trouble with NATS, subscribing again: {error!r}")
                await asyncio.sleep(1)
    finally:
        # Sends the last acks. An event whose ack is lost is delivered again.
        with contextlib.suppress(*TROUBLE):
            await client.flush(timeout=1)
        with contextlib.suppress(*TROUBLE):
            await client.close()


async def main() -> None:
    # Whatever an error contains can be printed.
    sys.stdout.reconfigure(errors="backslashreplace")
    provider = start_tracing()
    running = asyncio.create_task(run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        if provider:
            provider.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
