// Prints what @asyncapi/parser makes of the document named as first argument, as JSON.
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

const path = process.argv[2];
const { document, diagnostics } = await new Parser().parse(await readFile(path, 'utf8'), { source: path });
const messages = document?.allMessages().all().map((message) => ({
  name: message.name(),
  examples: message.examples().all().map((example) => ({ headers: example.headers(), payload: example.payload() })),
}));
console.log(JSON.stringify({
  diagnostics: diagnostics.map(({ severity, message, path: at }) => ({ severity, message, at: at.join('.') })),
  channels: document?.channels().all().map((channel) => channel.address()),
  messages,
}));
