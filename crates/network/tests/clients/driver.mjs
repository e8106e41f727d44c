// Drives one Baileys client by JSON lines: commands on standard input, answers and events on standard
// output. Started as `node driver.mjs 6` or `node driver.mjs 7`; the tests in ../baileys.rs speak to it.
//
// A command is {"n": 1, "do": "send", …}; its answer is {"n": 1, "ok": …} or {"n": 1, "error": "…"}.
// Everything else on standard output is {"event": "…", …}. The client's own log goes to standard error
// when DRIVER_LOG names a level. Credentials live in memory: one process is one linked device.

import https from 'node:https';
import readline from 'node:readline';
import pino from 'pino';

const generation = process.argv[2];
if (generation !== '6' && generation !== '7') {
  console.error('usage: node driver.mjs 6|7');
  process.exit(2);
}
const baileys = (await import(`./baileys${generation}.mjs`)).default;

const logger = pino(
  { level: process.env.DRIVER_LOG ?? 'silent' },
  pino.destination({ dest: 2, sync: true }),
);

const creds = baileys.initAuthCreds();
const stored = new Map();
/** Sent messages by id, for peers that ask for one again. */
const sent = new Map();
/** Keys of received messages by id, for read receipts. */
const received = new Map();

let options;
let socket;
/** Set while the client is to stay away. */
let away = false;
let firstQr;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const tell = (event, fields = {}) => say({ event, ...fields });

const keys = {
  get(type, ids) {
    const found = {};
    for (const id of ids) {
      const value = stored.get(`${type}/${id}`);
      if (value !== undefined) found[id] = value;
    }
    return found;
  },
  set(data) {
    for (const [type, values] of Object.entries(data)) {
      for (const [id, value] of Object.entries(values)) {
        if (value == null) stored.delete(`${type}/${id}`);
        else stored.set(`${type}/${id}`, value);
      }
    }
  },
};

function textOf(message) {
  // What is absent reads as an empty string from a protobuf object.
  return message?.conversation || message?.extendedTextMessage?.text || null;
}

function onMessage(type, message) {
  const { key } = message;
  received.set(key.id, key);
  tell('message', {
    delivery: type,
    id: key.id,
    chat: key.remoteJid,
    from_me: Boolean(key.fromMe),
    text: textOf(message.message),
    stub: message.messageStubParameters?.[0] ?? null,
  });
  // Updates that came while events were held back are part of the message already.
  if (key.fromMe && message.status != null) {
    tell('status', { id: key.id, status: message.status, from_me: true });
  }
}

function onConnection(update) {
  if (update.qr) {
    firstQr?.resolve(update.qr);
    tell('qr', { qr: update.qr });
  }
  if (update.isNewLogin) tell('linked', { jid: creds.me?.id, lid: creds.me?.lid ?? null });
  if (update.receivedPendingNotifications !== undefined) {
    tell('drained', { done: update.receivedPendingNotifications });
  }
  if (update.connection === 'open') {
    tell('open', { jid: creds.me?.id, lid: creds.me?.lid ?? null });
  }
  if (update.connection === 'close') {
    const code = update.lastDisconnect?.error?.output?.statusCode ?? null;
    tell('close', { code, reason: update.lastDisconnect?.error?.message ?? null });
    // What every application on Baileys does: build a new socket, unless told to stay away.
    if (code === 515 && !away) connect();
  }
}

function connect() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  firstQr = { promise, resolve };
  socket = baileys.makeWASocket({
    waWebSocketUrl: options.url,
    agent: options.ca ? new https.Agent({ ca: options.ca }) : undefined,
    auth: { creds, keys },
    browser: baileys.Browsers.ubuntu('Chrome'),
    logger,
    getMessage: async (key) => sent.get(key.id),
    // The log-in's own requests must not outlive a test.
    defaultQueryTimeoutMs: 20_000,
    keepAliveIntervalMs: options.keep_alive_ms ?? 30_000,
    markOnlineOnConnect: true,
  });
  socket.ev.on('creds.update', (update) => Object.assign(creds, update));
  socket.ev.on('connection.update', onConnection);
  socket.ev.on('messages.upsert', ({ messages, type }) => {
    for (const message of messages) onMessage(type, message);
  });
  socket.ev.on('messages.update', (updates) => {
    for (const { key, update } of updates) {
      if (update.status !== undefined) {
        tell('status', { id: key.id, status: update.status, from_me: Boolean(key.fromMe) });
      }
    }
  });
  socket.ev.on('presence.update', ({ id, presences }) => tell('presence', { id, presences }));
}

const commands = {
  /** Connects for the first time: {url, ca?, root?, keep_alive_ms?}. `root` pins the certificate chain. */
  start(command) {
    options = command;
    if (command.root) baileys.pinRoot(Buffer.from(command.root, 'hex'));
    connect();
  },
  /** Asks for a pairing code for this number: {phone}. */
  async code({ phone }) {
    await firstQr.promise;
    return socket.requestPairingCode(phone);
  },
  /** Has a name and is online, so that delivery receipts are plain ones: {name}. */
  async available({ name }) {
    creds.me.name ??= name;
    await socket.sendPresenceUpdate('available');
  },
  /** Sends a text: {to, text}; answers the id. */
  async send({ to, text }) {
    const message = await socket.sendMessage(to, { text });
    sent.set(message.key.id, message.message);
    return message.key.id;
  },
  /** Reads a received message: {id}. */
  async read({ id }) {
    await socket.readMessages([received.get(id)]);
  },
  /** Asks whether a number is registered: {phone}. */
  async exists({ phone }) {
    const found = await socket.onWhatsApp(phone);
    return Boolean(found?.[0]?.exists);
  },
  /** Goes away without a word to the server. */
  leave() {
    away = true;
    socket.end(undefined);
  },
  /** Connects again with the same credentials. */
  reconnect() {
    away = false;
    connect();
  },
  /** Unlinks itself. */
  async logout() {
    await socket.logout();
  },
  exit() {
    setImmediate(() => process.exit(0));
  },
};

process.on('uncaughtException', (error) => tell('crash', { error: String(error?.stack ?? error) }));
process.on('unhandledRejection', (error) => tell('crash', { error: String(error?.stack ?? error) }));

tell('ready', { generation });
const lines = readline.createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0));
for await (const line of lines) {
  const command = JSON.parse(line);
  // Commands may overlap: a send that waits must not keep the driver from leaving.
  Promise.resolve()
    .then(() => commands[command.do](command))
    .then(
      (ok) => say({ n: command.n, ok: ok ?? null }),
      (error) => say({ n: command.n, error: String(error?.message ?? error) }),
    );
}
