// Counts refusals by owner and prints an alert if an owner is refused too often. A consumer of importguard's events to copy:
// durable, handles each event once, continues the import's trace.

import { readFileSync } from 'node:fs';
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

// Counts by name within a sliding window. Older entries are removed.
class Window {
  #millis;
  #times = [];
  #counts = new Map();

  constructor(seconds) {
    this.#millis = seconds * 1000;
  }

  count(name) {
    const now = performance.now();
    while (this.#times.length > 0 && now - this.#times[0].at > this.#millis) {
      const { name: oldest } = this.#times.shift();
      const left = this.#counts.get(oldest) - 1;
      left > 0 ? this.#counts.set(oldest, left) : this.#counts.delete(oldest);
    }
    this.#times.push({ at: now, name });
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
  const id = message.headers?.get('Nats-Msg-Id') ?? '';
  const carrier = { traceparent: message.headers?.get('traceparent') ?? '' };
  const parent = propagator.extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
  const span = tracer.startSpan(`process ${message.subject}`, {
    kind: SpanKind.CONSUMER,
    attributes: {
      'messaging.system': 'nats',
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.name': message.subject,
      'messaging.message.id': id,
    },
  }, parent);
  try {
    if (seen.has(id)) {
      console.log(`duplicate ${id}`);
    } else {
      judge(message.json());
      seen.add(id);
    }
    message.ack();
  } catch (error) {
    // A retry would fail again.
    span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
    console.log(`no event: ${error}`);
    message.term();
  } finally {
    span.end();
  }
}

// Unknown fields are ignored, as the contract requires.
function judge({ type, data }) {
  if (type !== 'importguard.decision.v1' || data.verdict !== 'refuse') return;
  const owner = data.ownerUserID;
  const count = refusals.count(owner);
  console.log(`refusal owner=${owner} count=${count}`);
  if (count > threshold) {
    console.log(`ALERT owner=${owner} refusals=${count} within=${windowSeconds}s`);
  }
}

async function consumer(client) {
  // The check needs permission to read about the whole account.
  const manager = await jetstreamManager(client, { checkAPI: false });
  // The gateway creates the stream: wait for it.
  while (!(await found(() => manager.streams.info(STREAM)))) {
    console.log(`waiting for the stream ${STREAM}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
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
const messages = await (await consumer(client)).consume({ max_messages: 100 });
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => messages.close());
}
console.log(`ready: consumer ${durable} on ${STREAM}`);
for await (const message of messages) handle(message);
await client.drain();
await provider?.shutdown();
