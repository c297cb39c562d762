// Counts refusals by owner and prints an alert if an owner is refused too often. A consumer of importguard's events to copy:
// durable, handles each event once, continues the import's trace.

import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { AckPolicy, jetstream, jetstreamManager, JetStreamApiError } from '@nats-io/jetstream';
import { connect, credsAuthenticator, nanos } from '@nats-io/transport-node';
import { defaultTextMapGetter, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';

const STREAM = 'IMPORTGUARD';
const SUBJECT = 'importguard.v1.decision.*';
const durable = process.env.CONSUMER ?? 'refusals-node';
const threshold = Number(process.env.ALERT_THRESHOLD ?? 5);
const windowSeconds = Number(process.env.ALERT_WINDOW_SECONDS ?? 60);

// Remembers the last IDs. NATS delivers at least once; all copies of an event have the same ID.
class Once {
  #ids = new Set();
  #most;

  constructor(most) {
    this.#most = most;
  }

  has(id) {
    return this.#ids.has(id);
  }

  add(id) {
    this.#ids.add(id);
    if (this.#ids.size > this.#most) {
      // A Set keeps insertion order.
      this.#ids.delete(this.#ids.values().next().value);
    }
  }
}

// Counts by name within a sliding window of the events' own time, so that old events, read late, raise no alert.
class Window {
  #millis;
  #newest = 0;
  #times = [];
  #counts = new Map();

  constructor(seconds) {
    this.#millis = seconds * 1000;
  }

  // Adds one for `name` at the time `at` and returns its count; 0 if that was before the window.
  count(name, at) {
    // A clock that is ahead must not make all other events old.
    this.#newest = Math.max(this.#newest, Math.min(at, Date.now()));
    const start = this.#newest - this.#millis;
    while (this.#times.length > 0 && this.#times[0].at < start) {
      const { name: oldest } = this.#times.shift();
      const left = this.#counts.get(oldest) - 1;
      left > 0 ? this.#counts.set(oldest, left) : this.#counts.delete(oldest);
    }
    if (at < start) return 0;
    this.#times.splice(this.#times.findLastIndex((entry) => entry.at <= at) + 1, 0, { at, name });
    const count = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, count);
    return count;
  }
}

// Exports spans to OTEL_EXPORTER_OTLP_ENDPOINT, if set (HTTP, protobuf).
async function startTracing() {
  if (!process.env.OTEL_EXPORTER_OTLP_ENDPOINT) return undefined;
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto');
  const { BasicTracerProvider, BatchSpanProcessor } = await import('@opentelemetry/sdk-trace-base');
  const { resourceFromAttributes } = await import('@opentelemetry/resources');
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': process.env.OTEL_SERVICE_NAME ?? 'refusals-by-owner-node' }),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  });
  trace.setGlobalTracerProvider(provider);
  return provider;
}

const provider = await startTracing();
const tracer = trace.getTracer('refusals-by-owner');
const propagator = new W3CTraceContextPropagator();
const seen = new Once(100_000);
const refusals = new Window(windowSeconds);

// Handles a message, then acknowledges it: if the process dies in between, NATS delivers it again.
function handle(message) {
  const carrier = { traceparent: message.headers?.get('traceparent') ?? '' };
  const parent = propagator.extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
  const span = tracer.startSpan(`process ${message.subject}`, {
    kind: SpanKind.CONSUMER,
    attributes: {
      'messaging.system': 'nats',
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.name': message.subject,
    },
  }, parent);
  try {
    const event = parse(message);
    span.setAttribute('messaging.message.id', event.id);
    if (seen.has(event.id)) {
      console.log(`duplicate ${JSON.stringify(event.id)}`);
    } else {
      judge(event);
      seen.add(event.id);
    }
    message.ack();
  } catch (error) {
    // A retry would fail again.
    span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
    console.log(`no event: ${JSON.stringify(String(error))}`);
    message.term();
  } finally {
    span.end();
  }
}

// The fields that we need. Unknown fields are ignored, as the contract requires.
function parse(message) {
  const { id, type, time, data } = message.json();
  // The header Nats-Msg-Id has the ID too, but NATS takes messages without headers.
  if (typeof id !== 'string') throw new TypeError('an event without an ID');
  const at = Date.parse(time);
  if (Number.isNaN(at)) throw new TypeError('an event without a time');
  return { id, type, at, verdict: data.verdict, owner: data.ownerUserID };
}

function judge({ type, at, verdict, owner }) {
  if (type !== 'importguard.decision.v1' || verdict !== 'refuse') return;
  const count = refusals.count(owner, at);
  // As a JSON string: an ID may contain line breaks, and must not look like a line of its own.
  const id = JSON.stringify(owner);
  console.log(`refusal owner=${id} count=${count}`);
  if (count > threshold) {
    console.log(`ALERT owner=${id} refusals=${count} within=${windowSeconds}s`);
  }
}

// Returns nothing if the process was asked to stop before there was a stream.
async function consumer(client) {
  // The check needs permission to read about the whole account.
  const manager = await jetstreamManager(client, { checkAPI: false });
  // The gateway creates the stream: wait for it.
  while (!(await found(() => manager.streams.info(STREAM)))) {
    if (stopping) return undefined;
    console.log(`waiting for the stream ${STREAM}`);
    await setTimeout(1000);
  }
  if (!(await found(() => manager.consumers.info(STREAM, durable)))) {
    await manager.consumers.add(STREAM, {
      durable_name: durable,
      filter_subject: SUBJECT,
      ack_policy: AckPolicy.Explicit,
      // An event is delivered again if it is not acknowledged by then.
      ack_wait: nanos(30_000),
    });
  }
  return jetstream(client).consumers.get(STREAM, durable);
}

async function found(look) {
  try {
    return await look();
  } catch (error) {
    if (error instanceof JetStreamApiError) return undefined;
    throw error;
  }
}

const client = await connect({
  name: 'refusals-by-owner',
  servers: (process.env.NATS_URL ?? 'nats://127.0.0.1:4222').split(','),
  // This client ignores a user and a password in the URL.
  user: process.env.NATS_USER,
  pass: process.env.NATS_PASSWORD,
  authenticator: process.env.NATS_CREDS ? credsAuthenticator(readFileSync(process.env.NATS_CREDS)) : undefined,
  maxReconnectAttempts: -1,
  waitOnFirstConnect: true,
});
let messages;
let stopping = false;
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    stopping = true;
    messages?.close();
  });
}
while (!stopping) {
  try {
    // Ends with an error if the consumer was deleted, for example with the stream.
    const options = { max_messages: 100, abort_on_missing_resource: true, idle_heartbeat: 2000 };
    messages = await (await consumer(client))?.consume(options);
    if (stopping) break;
    console.log(`ready: consumer ${durable} on ${STREAM}`);
    for await (const message of messages) handle(message);
  } catch (error) {
    if (client.isClosed()) throw error;
    console.log(`trouble with NATS, subscribing again: ${error}`);
    await setTimeout(1000);
  }
}
messages?.close();
// Sends the last acks. An event whose ack is lost is delivered again.
await Promise.race([client.flush(), setTimeout(1000, undefined, { ref: false })]).catch(() => {});
await client.close();
await provider?.shutdown();
