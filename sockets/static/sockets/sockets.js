/**
 * The browser's end of a socket: routes what the server sends, gets answers to what it is asked, and comes back when
 * the connection was lost. An ES module that also sets the globals SocketRouter and SocketError.
 */

const DEFAULTS = {
  timeout: 10000,           // ms that a request waits for its answer
  heartbeat: 20000,         // ms of silence after which the server is asked for a sign of life
  heartbeatTimeout: 10000,  // ms that it has to give one, and to let us in
  minDelay: 1000,           // ms, at most, before the first new attempt; twice that before the next, and so on
  maxDelay: 5000,           // ms, at most, before any
  queueSize: 1000,          // frames that may wait for a connection
  final: [],                // close codes of the page's own after which it stays closed
  WebSocket: undefined,     // another class than the browser's
};

// With these the server says that coming back as we are is no use: rubbish, no login, not allowed.
const FINAL = [4400, 4401, 4403];
// And with this, that we should let it be for a while.
const RATE_LIMITED = 4429;
const LATE = 30000;

// A server that has no time for us says in how many seconds it will have, with this code and as the reason. It has
// heard nothing of what we sent. We add up to SPREAD ms, and believe no time beyond LATEST.
const TRY_AGAIN = 1013;
const RETRY = /^retry=(\d+(?:\.\d+)?)$/;
const SPREAD = 250;
const LATEST = 300000;

// Beyond this many failures no delay grows.
const MANY = 30;

// Frames of the queue that are sent at a time, and bytes after which nothing more is until they are handled; a layer
// takes 100 frames of a connection, and 16 MB, unless it is told otherwise.
const BATCH = 50;
const BATCH_BYTES = 2 ** 20;

// How a binary frame begins that has an envelope: JSON with its ref, between two NULs.
const MARK = '\0{"ref":';

// Streams: ms, at least, that a message has to come which another one has overtaken; twice that when it was asked for in
// vain, and so on up to the longest. ms in which streams gather that are asked for together.
const GAP = 200;
const LONGEST_GAP = 5000;
const GATHER = 20;
// ms after which we ask, though the server has not said where a stream stands: that may have been lost.
const UNTOLD = 5000;
// How many messages of a stream wait for those before them. They all come again when these are asked for.
const HELD = 1000;

// ms between two looks at the clock. It jumps while a laptop sleeps; timers only stop.
const TICK = 5000;

// Unlike any other page's, so that a server can know a ref again. (Without TLS there is no crypto.randomUUID().)
const PAGE = Array.from(crypto.getRandomValues(new Uint32Array(3)), number => number.toString(36)).join('') + '-';
let lastRef = 0;
const newRef = () => PAGE + ++lastRef;

/** Why a request has no answer: `code` and `details`, and of an ERROR its `errors` and the whole `content`. */
export class SocketError extends Error {
  constructor(code, details, content) {
    super(details);
    Object.assign(this, {name: 'SocketError', code, details, errors: content?.errors, content});
  }
}

/**
 * A socket at `path` (that of the page if none is given), which connects at once and whenever it must.
 *
 * Events, each a CustomEvent: `state`, `open`, `close`, `reconnect`, `error`, `lost`.
 */
export class SocketRouter extends EventTarget {
  #url;
  #options;
  #routes = [];
  #listeners = [];
  #default;
  #state = 'closed';
  #ws = null;
  #timer;
  #failures = 0;
  #slot = 0;             // until when the server has sent us away
  #isHeard = false;      // whether this connection has brought a frame
  #stopWatching = null;
  #bytes = 0;            // that were sent since the server was asked whether it has handled them
  #isAsking = false;
  #queue = new Set();    // entries that wait for a connection, in order
  #unheard = new Set();  // entries that were sent and that the server may not have heard, in order
  #waiting = new Map();  // ref -> the entry of a request without an answer, in order
  #streams = new Streams({
    send: content => this.#isOpen && this.#ws.send(JSON.stringify(content)),
    deliver: content => this.#deliver(content),
    lost: detail => this.#emit('lost', detail),
  });

  constructor(path = pagePath(), options = {}) {
    super();
    this.#url = address(path);
    this.#options = withDefaults(options);
    this.open();
  }

  /** 'connecting', 'open', 'waiting' (for the next attempt), 'offline' or 'closed'. */
  get state() {
    return this.#state;
  }

  /**
   * Call `fn(content, socket)` for each frame whose type equals the string `pattern`, or matches the RegExp from the
   * start. The route defined last wins. With `Uint8Array` for a pattern: for binary frames, as `bytes(fn)`.
   */
  route(pattern, fn) {
    this.#routes.unshift(makeRoute('route', pattern, fn));
    return this;
  }

  /** Call `fn(data, socket)` with the Uint8Array of each binary frame that answers no request. The last one counts. */
  bytes(fn) {
    mustBeFunction(fn, 'bytes(fn)');
    return this.route(Uint8Array, fn);
  }

  /** Call `fn` for the frames that match `pattern`, beside the route and other listeners, which stay as they are. */
  on(pattern, fn) {
    const listener = makeRoute('on', pattern, fn);
    if (!this.#listeners.some(other => isSame(other, listener))) this.#listeners.push(listener);
    return this;
  }

  /** Call `fn`, which was given to `on()` with the same `pattern`, no more. */
  off(pattern, fn) {
    const listener = makeRoute('off', pattern, fn);
    this.#listeners = this.#listeners.filter(other => !isSame(other, listener));
    return this;
  }

  /** Call `fn(content, socket)` for each frame that no route matches. */
  default(fn) {
    mustBeFunction(fn, 'default(fn)');
    this.#default = fn;
    return this;
  }

  /**
   * Send a frame, now or when there is a connection: `send(type, fields)`, or `send(data)` with an ArrayBuffer, a view
   * of one or a Blob for a binary frame. Throws SocketError if it is closed or the queue is full.
   */
  send(type, fields) {
    this.#push(pack(type, fields));
  }

  /**
   * Send a frame, `request(type, fields, options)` or `request(data, options)`, and return a promise of its answer: the
   * content, or a Uint8Array if the function returned bytes. It is rejected with a SocketError: by an ERROR, after
   * `timeout` ms ('timeout'), when two connections were lost over it ('connection_lost'), by close() and codes that are
   * final ('closed'), by `signal` ('aborted'), and when too much waits ('queue_full').
   */
  request(type, ...rest) {
    return new Promise((resolve, reject) => {
      const isBytes = isBinary(type);
      const [fields, {timeout = this.#options.timeout, signal, ...others} = {}] = isBytes ? [undefined, ...rest] : rest;
      if (isBytes && Object.keys(others).length) mustHaveNoFields(others);
      mustBeNumber(timeout, 'timeout');
      const ref = newRef();
      const entry = {...pack(type, fields, ref), isResent: false};
      if (isBytes) type = 'bytes';
      const settle = (how, value) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.#waiting.delete(ref);
        this.#queue.delete(entry);
        this.#unheard.delete(entry);
        how(value);
      };
      entry.answer = content => settle(resolve, content);
      entry.fail = (...args) => settle(reject, new SocketError(...args));
      const abort = () => entry.fail('aborted', `The request ${type} was aborted.`);
      if (!signal?.aborted) this.#push(entry);
      this.#waiting.set(ref, entry);
      const timer = after(timeout, () => entry.fail('timeout', `No answer to ${type} within ${timeout} ms.`));
      signal?.addEventListener('abort', abort);
      if (signal?.aborted) abort();
    });
  }

  /** Connect now, unless there is a connection: after a close(), a final code, or instead of waiting. */
  open() {
    if (!this.#ws) this.#connect();
  }

  /** Close the connection and stay closed until open(). Requests under way are rejected, what is queued is dropped. */
  close(code = 1000, reason = '') {
    this.#ws?.close(code, reason);
    this.#leave('closed', code, reason);
  }

  // A connection's life, in the order in which things happen.

  #connect() {
    const ws = this.#ws = new (this.#options.WebSocket ?? globalThis.WebSocket)(this.#url);
    this.#isHeard = false;
    this.#slot = 0;
    this.#bytes = 0;
    ws.binaryType = 'arraybuffer';
    ws.onopen = () => {
      this.#streams.begin();
      this.#flush();
      this.#expectFrame();
      this.#become('open');
      this.#emit('open');
    };
    ws.onmessage = event => this.#receive(event.data);
    ws.onclose = ({code, reason}) => {
      this.#leave([...FINAL, ...this.#options.final].includes(code) ? 'closed' : 'waiting', code, reason);
    };
    ws.onerror = () => {};  // a close follows; outside of browsers, an error that nobody hears would be thrown
    this.#orGiveUp('The server did not let us in');
    this.#watch();
    this.#become('connecting');
  }

  // Send what is queued. A server closes who lets too many frames wait, so the next go when it has handled these.
  #flush() {
    if (!this.#isOpen || this.#isAsking) return;
    for (const entry of [...this.#queue].slice(0, BATCH)) {
      this.#transmit(entry);
      this.#queue.delete(entry);
      if (this.#bytes > BATCH_BYTES) break;
    }
    if (this.#queue.size || this.#bytes > BATCH_BYTES) this.#ask();
  }

  // Ask the server whether it has handled what was sent, and let others wait until then.
  #ask() {
    const ref = newRef();
    const next = () => {
      clearTimeout(timer);
      this.#waiting.delete(ref);
      this.#isAsking = false;
      this.#flush();
    };
    this.#bytes = 0;
    this.#isAsking = true;
    const timer = after(this.#options.heartbeatTimeout, next);
    this.#waiting.set(ref, {answer: next, fail: next, isResent: true});
    this.#ws.send(encode('PING', {}, ref));
  }

  #receive(frame) {
    this.#expectFrame();
    this.#isHeard = true;
    this.#unheard.clear();
    attempt(() => typeof frame === 'string' ? this.#dispatch(JSON.parse(frame)) : this.#take(new Uint8Array(frame)));
  }

  #dispatch(content) {
    const {type, ref} = content;
    if (type === 'RECONNECT') return this.#emit('reconnect', content);
    // The connection is good. (Who is refused gets an ERROR or RECONNECT first.)
    if (type !== 'ERROR' || ref !== undefined) this.#failures = 0;
    if (type === 'PING') return this.#ws.send(encode('PING'));
    if (this.#streams.take(content)) return;
    const request = this.#waiting.get(ref);
    if (request) {
      return type === 'ERROR' ? request.fail(content.code, content.details, content) : request.answer(content);
    }
    // Answers a PING, or a request that did not wait for it.
    if (typeof ref === 'string' && ref.startsWith(PAGE)) return;
    if (type === 'ERROR') {
      if (this.#emit('error', content)) console.warn(`The server says ${content.code}: ${content.details}`);
      return;
    }
    this.#deliver(content);
  }

  #deliver(content) {
    const {type} = content;
    if (this.#hand(type, content, this.#default)) return;
    console.warn(`No route for the type ${type}. Add socket.route('${type}', fn) or socket.default(fn).`);
  }

  #take(frame) {
    const [ref, data] = unwrap(frame);
    this.#failures = 0;
    const request = this.#waiting.get(ref);
    if (request) return request.answer(data);
    if (typeof ref === 'string' && ref.startsWith(PAGE)) return;
    if (this.#hand(Uint8Array, data)) return;
    console.warn('No route for binary frames. Add socket.bytes(fn).');
  }

  // Call the function of the route and those that listen; return whether there are any.
  #hand(type, content, otherwise) {
    const fns = [this.#routes.find(route => route.matches(type))?.fn ?? otherwise,
                 ...this.#listeners.filter(listener => listener.matches(type)).map(listener => listener.fn)];
    for (const fn of fns) if (fn) attempt(() => fn(content, this));
    return fns.some(Boolean);
  }

  // Wait for a frame, ask for one, give up.
  #expectFrame() {
    this.#setTimer(this.#options.heartbeat, () => this.#probe());
  }

  #probe() {
    this.#ws.send(encode('PING', {}, newRef()));
    this.#orGiveUp('The server gave no sign of life');
  }

  #orGiveUp(reason) {
    const ms = this.#options.heartbeatTimeout;
    const unsent = this.#ws.bufferedAmount;
    this.#setTimer(ms, () => {
      // It is there, and takes what stands before our question.
      if (this.#ws.bufferedAmount < unsent) this.#orGiveUp(reason);
      else this.#leave('waiting', 1006, `${reason} within ${ms} ms.`);
    });
  }

  // Let go of the connection, if there is one, and become `state`.
  #leave(state, code, reason) {
    const ws = this.#ws;
    const wasOpen = this.#state === 'open';
    this.#ws = null;
    this.#streams.end();
    this.#setTimer(Infinity);
    if (ws) {
      // Its own close event can take a minute when nobody is there any more.
      ws.onopen = ws.onmessage = ws.onclose = null;
      ws.close();
    }
    const slot = code === TRY_AGAIN && !this.#isHeard ? RETRY.exec(reason) : null;
    // In their place, before what came later.
    if (slot) this.#queue = new Set([...this.#unheard, ...this.#queue]);
    this.#unheard.clear();
    let delay;
    if (state === 'closed') {
      this.#stopWatching?.();
      this.#queue.clear();
      for (const request of [...this.#waiting.values()]) request.fail('closed', `The socket was closed with ${code}.`);
    } else {
      this.#queueAgain();
    }
    if (state === 'waiting') {
      if (slot) {
        delay = Math.min(slot[1] * 1000, LATEST) + Math.random() * SPREAD;
        this.#slot = Date.now() + delay;
      } else {
        const longest = code === RATE_LIMITED ? Math.max(this.#options.maxDelay, LATE) :
          Math.min(this.#options.maxDelay, this.#options.minDelay * 2 ** this.#failures);
        this.#failures = Math.min(this.#failures + 1, MANY);
        // Anywhere in that time, so that the pages of a restarted server do not come back all at once.
        delay = Math.random() * longest;
      }
      this.#setTimer(delay, () => this.#connect());
    }
    this.#become(state, delay);
    if (wasOpen) this.#emit('close', {code, reason, reconnects: state !== 'closed'});
  }

  #queueAgain() {
    const again = [];
    for (const entry of [...this.#waiting.values()].filter(entry => !this.#queue.has(entry))) {
      if (entry.isResent) {
        entry.fail('connection_lost', 'The connection was lost, twice. Whether the server got this, nobody knows.');
      } else {
        entry.isResent = true;
        entry.frame = entry.resend();
        again.push(entry);
      }
    }
    this.#queue = new Set([...again, ...this.#queue]);
  }

  #push(entry) {
    if (this.#state === 'closed') throw new SocketError('closed', 'The socket is closed. Call its open() first.');
    // Nothing overtakes the queue.
    if (this.#isOpen && !this.#queue.size && !this.#isAsking) {
      this.#transmit(entry);
      if (this.#bytes > BATCH_BYTES) this.#ask();
      return;
    }
    const size = this.#queue.size;
    if (size >= this.#options.queueSize) throw new SocketError('queue_full', `${size} frames wait for a connection.`);
    this.#queue.add(entry);
  }

  #transmit(entry) {
    this.#ws.send(entry.frame);
    this.#bytes += entry.frame.size ?? entry.frame.length;
    if (!this.#isHeard) this.#unheard.add(entry);
  }

  // Not while it closes: what is sent then is lost.
  get #isOpen() {
    return this.#ws?.readyState === 1;
  }

  // What happens to the page: networks come and go, laptops sleep, browsers keep pages for their back button.
  #watch() {
    if (this.#stopWatching) return;
    const controller = new AbortController();
    const sleep = () => this.#leave('offline', 1006, 'The page went offline.');
    const wake = () => {
      if (this.#state === 'open') return this.#probe();
      // Who comes before its time is sent away again, for longer.
      if (this.#state !== 'waiting' || Date.now() >= this.#slot) this.open();
    };
    const wakeUnlessOffline = () => this.#state !== 'offline' && wake();
    const listeners = {
      offline: sleep,
      online: wake,
      pagehide: sleep,
      pageshow: event => event.persisted && wake(),
      visibilitychange: () => document.hidden || wakeUnlessOffline(),
    };
    for (const [type, listener] of Object.entries(listeners)) {
      // Node may forget the signal's part of this when it collects garbage.
      const unlessClosed = event => controller.signal.aborted || listener(event);
      globalThis.addEventListener?.(type, unlessClosed, {signal: controller.signal});
    }
    let before = Date.now();
    const ticks = setInterval(() => {
      if (Date.now() - before > 2 * TICK) wakeUnlessOffline();
      before = Date.now();
    }, TICK);
    this.#stopWatching = () => {
      controller.abort();
      clearInterval(ticks);
      this.#stopWatching = null;
    };
  }

  #setTimer(ms, fn) {
    clearTimeout(this.#timer);
    this.#timer = after(ms, fn);
  }

  #become(state, delay) {
    const previous = this.#state;
    this.#state = state;
    if (state !== previous) this.#emit('state', {state, previous, delay});
  }

  #emit(type, detail) {
    return this.dispatchEvent(new CustomEvent(type, {detail, cancelable: true}));
  }
}

/** The streams that a socket follows: each message goes to the page once, in order, and what was missed is asked for. */
class Streams {
  #socket;
  #streams = new Map();  // where it is -> a stream
  #asked = new Map();    // ref -> the streams that a RESUME asks for
  #due = new Set();      // streams that the next one will ask for
  #timer;

  constructor(socket) {
    this.#socket = socket;
  }

  /** There is a new connection. */
  begin() {
    for (const stream of this.#streams.values()) {
      stream.before = stream.offset;
      if (stream.epoch !== undefined) this.#askLater(stream, UNTOLD);
    }
  }

  /** The connection is lost, and with it what was asked for. What was overtaken comes again. */
  end() {
    clearTimeout(this.#timer);
    this.#asked.clear();
    this.#due.clear();
    for (const stream of this.#streams.values()) {
      stopTimer(stream);
      Object.assign(stream, {isTold: false, isAsked: false, tries: 0});
      if (stream.epoch !== undefined) stream.held.clear();
    }
  }

  /** Return whether `content` is about a stream, and is dealt with. */
  take(content) {
    const [within, body] = unpack(content);
    if (body.kept && typeof body.kept.stream === 'string') this.#receive(this.#find(within, body.kept.stream), body);
    else if (body.type === 'FOLLOWING') this.#follow(this.#find(within, body.stream), body);
    else if (this.#asked.has(body.ref)) this.#resume(body);
    else return false;
    return true;
  }

  #find(within, name) {
    const where = JSON.stringify([...within, name]);
    if (!this.#streams.has(where)) {
      // Without an epoch, we have had nothing of it. `before` is how far we were when the connection began.
      const {epoch, offset = 0} = pagePositions().get(name) ?? {};
      const state = {isTold: false, isAsked: false, tries: 0, timer: undefined};
      this.#streams.set(where, {within, name, epoch, offset, before: offset, held: new Map(), ...state});
    }
    return this.#streams.get(where);
  }

  // The server says where it stands, and, for who has had nothing of it, where to begin.
  #follow(stream, {epoch, offset, since}) {
    if (stream.epoch === undefined) {
      // What has overtaken this was sent to us, too.
      const start = since ?? {epoch, offset: Math.min(offset, ...[...stream.held.keys()].map(held => held - 1))};
      Object.assign(stream, {epoch: start.epoch, offset: start.offset, before: start.offset});
    }
    stream.isTold = true;
    stopTimer(stream);
    adopt(stream, epoch);
    this.#deliverHeld(stream);
    // What we have had on this connection it may not have seen yet. What we have had before, it must have.
    if (epoch !== stream.epoch || offset > stream.offset || offset < stream.before) this.#ask(stream);
    else if (stream.held.size) this.#askLater(stream);
  }

  #receive(stream, body) {
    const {epoch, offset} = body.kept;
    // Nobody has said yet where it begins for us, or there is something before it.
    if (stream.epoch !== undefined) {
      adopt(stream, epoch);
      if (epoch === stream.epoch && offset <= stream.offset) return;
      if (epoch === stream.epoch && offset === stream.offset + 1) {
        this.#deliver(stream, body);
        return this.#deliverHeld(stream);
      }
    }
    if (stream.held.size < HELD) stream.held.set(offset, body);
    if (stream.isTold) this.#askLater(stream);
  }

  #deliver(stream, body) {
    stream.offset = body.kept.offset;
    attempt(() => this.#socket.deliver(packWithin(stream.within, body)));
  }

  #deliverHeld(stream) {
    for (const [offset, body] of [...stream.held].sort(([one], [other]) => one - other)) {
      if (body.kept.epoch === stream.epoch && offset === stream.offset + 1) this.#deliver(stream, body);
      if (body.kept.epoch === stream.epoch && offset <= stream.offset) stream.held.delete(offset);
    }
  }

  // Unless what is missing comes until then.
  #askLater(stream, ms = Math.min(GAP * 2 ** stream.tries, LONGEST_GAP)) {
    if (stream.timer !== undefined) return;
    stream.timer = setTimeout(() => {
      stream.timer = undefined;
      if (!stream.isTold || stream.isAsked || stream.held.size) this.#ask(stream, true);
    }, ms + Math.random() * ms);
  }

  // Once at a time, unless `isAgain`: the answer may have been lost.
  #ask(stream, isAgain = false) {
    if (stream.isAsked && !isAgain) return;
    stream.isAsked = true;
    if (!this.#due.size) this.#timer = setTimeout(() => this.#send(), GATHER);
    this.#due.add(stream);
  }

  // One frame for all that are within the same streams of a demultiplexer.
  #send() {
    const groups = new Map();
    for (const stream of this.#due) {
      const key = JSON.stringify(stream.within);
      groups.set(key, [...groups.get(key) ?? [], stream]);
    }
    this.#due.clear();
    for (const streams of groups.values()) {
      const ref = newRef();
      const positions = streams.map(({name, epoch, offset}) => [name, {epoch: epoch ?? '', offset}]);
      this.#asked.set(ref, streams);
      for (const stream of streams) this.#askLater(stream, LONGEST_GAP);
      this.#socket.send(packWithin(streams[0].within, {type: 'RESUME', ref, streams: Object.fromEntries(positions)}));
    }
  }

  #resume({type, ref, streams = {}}) {
    const asked = this.#asked.get(ref);
    this.#asked.delete(ref);
    for (const stream of asked) {
      const part = streams[stream.name];
      stopTimer(stream);
      // Without a part, it is not followed any more.
      stream.isAsked = type === 'ERROR';
      if (stream.isAsked) this.#askLater(stream, LONGEST_GAP);
      else if (part) this.#fill(stream, part);
    }
  }

  #fill(stream, {epoch, offset, lost, more, messages}) {
    const before = stream.offset;
    if (lost) {
      Object.assign(stream, {epoch, offset, before: offset});
      const {name, within} = stream;
      this.#socket.lost({stream: name, epoch, offset, ...within.length && {within}});
    } else {
      adopt(stream, epoch);
      for (const body of messages) if (body.kept.offset === stream.offset + 1) this.#deliver(stream, body);
    }
    this.#deliverHeld(stream);
    for (const [at, body] of stream.held) if (body.kept.epoch !== stream.epoch) stream.held.delete(at);
    if (more) return this.#ask(stream);
    stream.tries = stream.held.size && stream.offset === before ? stream.tries + 1 : 0;
    if (stream.held.size) this.#askLater(stream);
  }
}

function stopTimer(stream) {
  clearTimeout(stream.timer);
  stream.timer = undefined;
}

// What had no message yet when we came has got its first one.
function adopt(stream, epoch) {
  if (stream.epoch === '' && stream.offset === 0) stream.epoch = epoch;
}

// The streams of demultiplexers that are around a content, the outermost first, and what is in the innermost.
function unpack(content) {
  const within = [];
  while (typeof content.stream === 'string' && content.payload !== null && typeof content.payload === 'object') {
    within.push(content.stream);
    content = content.payload;
  }
  return [within, content];
}

const packWithin = (within, content) => within.reduceRight((payload, stream) => ({stream, payload}), content);

// Up to where the page has what its streams brought, as {% stream_position %} printed it.
function pagePositions() {
  const found = new Map();
  for (const element of globalThis.document?.querySelectorAll?.('script[data-stream-positions]') ?? []) {
    for (const position of JSON.parse(element.textContent)) found.set(position.stream, position);
  }
  return found;
}

function address(path) {
  try {
    const url = resolve(String(path));
    url.protocol = url.protocol.replace('http', 'ws');
    url.hash = '';
    if (/^wss?:$/.test(url.protocol)) return url.href;
  } catch {
    // The same as an address of another kind.
  }
  throw new TypeError(`A socket is at a path or an address: '/room/lobby/' or 'wss://example.com/', not ${path}.`);
}

// That of a blob: is an address, and those of data: and about: are no paths.
function pagePath() {
  const path = globalThis.location?.pathname;
  if (path?.startsWith('/')) return path;
  throw new TypeError("This page has no path. A socket is at a path or an address: '/room/lobby/' or 'wss://example.com/'.");
}

// A path is one of the page's own host, however it begins: to URL, '//x/' and '/\\x/' are addresses of a host x.
function resolve(text) {
  try {
    return new URL(text);
  } catch {
    const {pathname} = globalThis.location;
    // A page without an address (srcdoc, about:blank) has the origin of the page that made it.
    const origin = globalThis.location.origin === 'null' ? globalThis.origin : globalThis.location.origin;
    // URL would drop these before it looks.
    const path = text.replace(/^[\0- ]+|[\t\n\r]/g, '');
    const page = 'http://page';
    if (!/^[/\\]/.test(path) && !pathname.startsWith('/')) throw new TypeError('This page has no path.');
    return new URL(origin + (/^[/\\]/.test(path) ? path : new URL(path, page + pathname).href.slice(page.length)));
  }
}

function withDefaults(options) {
  for (const [name, value] of Object.entries(options)) {
    if (!(name in DEFAULTS)) {
      throw new TypeError(`There is no option ${name}. There are ${Object.keys(DEFAULTS).join(', ')}.`);
    }
    if (name === 'WebSocket') mustBeFunction(value, name);
    else if (name === 'final') mustBeCodes(value);
    else mustBeNumber(value, name);
  }
  return {...DEFAULTS, ...options};
}

function makeRoute(method, pattern, fn) {
  if (typeof pattern !== 'string' && pattern !== Uint8Array && !(pattern instanceof RegExp)) {
    throw new TypeError(`A route is for a type: ${method}('CHAT', fn) or ${method}(/GAME_.+/, fn), not ${pattern}.`);
  }
  mustBeFunction(fn, `${method}(${pattern === Uint8Array ? 'Uint8Array' : pattern}, fn)`);
  let matches = type => type === pattern;
  if (pattern instanceof RegExp) {
    // Sticky at 0 is "from the start". A copy: lastIndex is nobody else's.
    const fromStart = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, '') + 'y');
    matches = type => typeof type === 'string' && (fromStart.lastIndex = 0, fromStart.test(type));
  }
  return {pattern, matches, fn};
}

function isSame(one, other) {
  return one.fn === other.fn && typeof one.pattern === typeof other.pattern &&
    String(one.pattern) === String(other.pattern);
}

function attempt(fn) {
  try {
    fn();
  } catch (error) {
    // Of a page's function, most likely. It is no reason to end the connection.
    (globalThis.reportError ?? console.error)(error);
  }
}

function mustBeCodes(value) {
  if (!(Array.isArray(value) && value.every(code => Number.isInteger(code) && code >= 1000 && code < 5000))) {
    throw new TypeError(`final is a list of close codes such as [4404], not ${value}.`);
  }
}

function mustHaveNoFields(fields) {
  throw new TypeError(`A binary frame has no fields, such as ${Object.keys(fields)}. Send them in a frame of their own.`);
}

function mustBeFunction(value, what) {
  if (typeof value !== 'function') throw new TypeError(`${what} needs a function, not ${value}.`);
}

function mustBeNumber(value, name) {
  if (!(typeof value === 'number' && value > 0)) {
    throw new TypeError(`${name} is a number such as ${DEFAULTS[name]}, not ${value}.`);
  }
}

function encode(type, fields = {}, ref) {
  if (typeof type !== 'string') throw new TypeError(`A type is a string such as 'CHAT', not ${type}.`);
  // A Map or a FormData would be an object without fields.
  if (Object.prototype.toString.call(fields) !== '[object Object]') {
    throw new TypeError(`Fields are an object such as {text: 'Hello'}, not ${fields}.`);
  }
  for (const name of ['type', 'ref', 'resent']) {
    if (name in fields) throw new TypeError(`The field ${name} is not yours to set. Choose another name.`);
  }
  return JSON.stringify({type, ...fields, ref});
}

const isBinary = value => value instanceof ArrayBuffer || ArrayBuffer.isView(value) || value instanceof Blob;

// What is sent now, and what if it has to be sent again. Both hold what there is now, whatever becomes of it.
function pack(type, fields, ref) {
  if (!isBinary(type)) {
    const text = encode(type, fields, ref);
    return {frame: text, resend: () => JSON.stringify({...JSON.parse(text), resent: true})};
  }
  if (fields !== undefined) mustHaveNoFields(Object(fields));
  const data = type instanceof Blob ? type :
    ArrayBuffer.isView(type) ? new Uint8Array(type.buffer, type.byteOffset, type.byteLength).slice() :
      new Uint8Array(type).slice();
  // Without a ref it goes as it is, unless it looks as if it had an envelope; nobody can look into a Blob in time.
  const isPlain = ref === undefined && !(data instanceof Blob) && !hasEnvelope(data);
  return {frame: isPlain ? data : wrap(data, {ref: ref ?? null}), resend: () => wrap(data, {ref, resent: true})};
}

function wrap(data, envelope) {
  const head = new TextEncoder().encode(`\0${JSON.stringify(envelope)}\0`);
  if (data instanceof Blob) return new Blob([head, data]);
  const frame = new Uint8Array(head.length + data.length);
  frame.set(head);
  frame.set(data, head.length);
  return frame;
}

function unwrap(frame) {
  if (!hasEnvelope(frame)) return [undefined, frame];
  const end = frame.indexOf(0, 1);
  return [JSON.parse(new TextDecoder().decode(frame.subarray(1, end))).ref, frame.slice(end + 1)];
}

const hasEnvelope = frame => [...MARK].every((character, index) => frame[index] === character.charCodeAt());

function after(ms, fn) {
  // What is longer, as Infinity is, a timer takes for 0.
  return ms < 2 ** 31 ? setTimeout(fn, ms) : undefined;
}

Object.assign(globalThis, {SocketRouter, SocketError});
