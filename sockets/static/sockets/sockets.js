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

// ms that a gap in a stream may stay before it is asked for, and up to as many more; twice that each time that the
// answer does not fill it, up to GAP_LATEST. And ms after which a connection should have said which streams it follows.
const GAP = 200;
const GAP_LATEST = 30000;
const FOLLOWED = 5000;
// ms for which a client that has had nothing of a stream waits to be told where it begins. The server says so four times, the
// last time after 21 s and the time that it takes.
const BEGUN = 30000;
// Messages of a stream, and characters of them, that are held back at most. What is beyond is asked for.
const HELD = 1000;
const HELD_SIZE = 2 ** 22;
// Streams that a RESUME may ask for.
const RESUMED = 100;
// ms in which a frame that says where a stream stands may come later than a message that was sent after it.
const OVERTAKEN = 1000;

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
  #streams;

  constructor(path = pagePath(), options = {}) {
    super();
    this.#url = address(path);
    this.#options = withDefaults(options);
    this.#streams = new Streams({
      deliver: content => this.#route(content),
      lose: detail => this.#emit('lost', detail),
      resume: (...args) => this.#resume(...args),
    });
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
    if (!this.#listeners.some(other => isSameRoute(other, listener))) this.#listeners.push(listener);
    return this;
  }

  /** Call `fn`, which was given to `on()` with the same `pattern`, no more. */
  off(pattern, fn) {
    const listener = makeRoute('off', pattern, fn);
    this.#listeners = this.#listeners.filter(other => !isSameRoute(other, listener));
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
      this.#flush();
      this.#expectFrame();
      this.#streams.open();
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

  // Ask for what was missed of `streams`, names and positions, and call `done` with the answer, or with an ERROR or
  // undefined if there is none. Not on another connection: that says anew where streams stand.
  #resume(within, streams, done) {
    const ref = newRef();
    const settle = content => {
      clearTimeout(timer);
      this.#waiting.delete(ref);
      done(content);
    };
    const timer = after(this.#options.heartbeatTimeout, () => settle());
    this.#waiting.set(ref, {answer: settle, fail: (code, details, error) => settle(error), isResent: true});
    this.#ws.send(JSON.stringify(packWithin(within, {type: 'RESUME', streams, ref})));
  }

  #receive(frame) {
    this.#expectFrame();
    this.#isHeard = true;
    this.#unheard.clear();
    attempt(() => {
      if (typeof frame === 'string') this.#dispatch(JSON.parse(frame), frame.length);
      else this.#take(new Uint8Array(frame));
    });
  }

  #dispatch(content, size) {
    const {type} = content;
    const [within, payload] = unpack(content);
    const {ref} = payload;
    // A message of a stream is one whatever its type, as when it is sent again.
    const isOfStream = this.#streams.take(within, payload, content, size);
    if (type === 'RECONNECT' && !isOfStream) return this.#emit('reconnect', content);
    // The connection is good. (Who is refused gets an ERROR or RECONNECT first.)
    if (type !== 'ERROR' || ref !== undefined || isOfStream) this.#failures = 0;
    if (isOfStream) return;
    if (type === 'PING') return this.#ws.send(encode('PING'));
    const request = this.#waiting.get(ref);
    if (request) {
      if (payload.type === 'ERROR') request.fail(payload.code, payload.details, payload);
      else request.answer(payload);
      return;
    }
    // Answers a PING, or a request that did not wait for it.
    if (typeof ref === 'string' && ref.startsWith(PAGE)) return;
    if (type === 'ERROR') {
      if (this.#emit('error', content)) console.warn(`The server says ${content.code}: ${content.details}`);
      return;
    }
    this.#route(content);
  }

  #route(content) {
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
    this.#setTimer(Infinity);
    this.#streams.close();
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

/**
 * How far the page is in each stream that the connection follows: hands it each message once and in order, holds back
 * what comes after a gap, and asks for what is missing.
 *
 * `page` is what is done with it: `deliver(content)`, `lose(detail)` and `resume(within, streams, done)`.
 */
class Streams {
  #page;
  #printed = printedPositions();
  #all = new Map();       // within and name, as JSON -> Stream
  #wanted = new Set();    // streams that are to be asked for
  #asking = new Set();    // withins, as JSON, in which an answer is awaited
  #timer;
  isOpen = false;

  constructor(page) {
    this.#page = page;
  }

  /** There is a connection, which will say what it follows. */
  open() {
    this.isOpen = true;
    for (const stream of this.#all.values()) stream.begin();
    this.#timer = after(FOLLOWED + Math.random() * GAP, () => this.#askUnfollowed());
  }

  /** There is none any more. (Who waits for an answer has been told, or will be.) */
  close() {
    this.isOpen = false;
    clearTimeout(this.#timer);
    this.#wanted.clear();
    this.#asking.clear();
    for (const stream of this.#all.values()) stream.rest();
  }

  /** Take `content`, in which `payload` came in `within`, if it is about a stream; return whether it is. */
  take(within, payload, content, size) {
    const {type, kept} = payload;
    if (isPlace(kept)) {
      this.#get(within, kept.stream).push(content, kept, size);
    } else if (type === 'FOLLOWING' && isPlace(payload)) {
      this.#get(within, payload.stream).follow(payload);
    } else {
      return false;
    }
    return true;
  }

  deliver(content) {
    this.#page.deliver(content);
  }

  lose(stream) {
    const {within, name, position} = stream;
    attempt(() => this.#page.lose({stream: name, ...position, ...within.length && {within}}));
  }

  /** Ask for what `streams` are missing; if an answer is awaited already, after that. */
  ask(...streams) {
    for (const stream of streams) {
      stream.isAsked = true;
      this.#wanted.add(stream);
    }
    for (const {within} of streams) this.#askAll(within);
  }

  #askAll(within) {
    const key = JSON.stringify(within);
    const streams = [...this.#wanted].filter(stream => JSON.stringify(stream.within) === key).slice(0, RESUMED);
    if (!this.isOpen || this.#asking.has(key) || !streams.length) return;
    this.#asking.add(key);
    for (const stream of streams) this.#wanted.delete(stream);
    const asked = new Map(streams.map(({name, position}) => [name, {...position}]));
    this.#page.resume(within, Object.fromEntries(asked), answer => {
      if (!this.isOpen) return;
      this.#asking.delete(key);
      for (const stream of streams) stream.resume(answer, asked.get(stream.name));
      this.#askAll(within);
    });
  }

  // What says that a stream is followed may be lost as well.
  #askUnfollowed() {
    const names = new Set([...this.#all.values()].map(stream => stream.name));
    // Not within an within: a page does not say in which.
    for (const name of this.#printed.keys()) if (!names.has(name)) this.#get([], name);
    this.ask(...[...this.#all.values()].filter(stream => stream.position && !stream.isFollowed && !stream.isAsked));
  }

  #get(within, name) {
    const key = JSON.stringify([...within, name]);
    const stream = this.#all.get(key) ?? new Stream(this, within, name, this.#printed.get(name));
    this.#all.set(key, stream);
    return stream;
  }
}

/** Where the page is in one stream, and what came too early for it. */
class Stream {
  #streams;
  #held = new Map();   // offset -> {content, size} of the epoch in #known
  #heldSize = 0;
  #known;              // the furthest position that the server has spoken of
  #movedAt = -Infinity;
  #timer;
  #tries = 0;
  isFollowed = false;  // whether this connection has said so
  isAsked = false;     // whether an answer is awaited, or will be
  position;            // of the last message that the page has had; undefined until somebody says where to begin

  constructor(streams, within, name, position) {
    Object.assign(this, {within, name, position: position && {...position}});
    this.#streams = streams;
  }

  /** There is another connection. What the page has had before, that cannot have overtaken. */
  begin() {
    this.isFollowed = false;
    this.#movedAt = -Infinity;
  }

  /** The server says where the stream stands, and where to begin for who has had nothing of it; not if it says so `again`. */
  follow({epoch, offset, since, again}) {
    this.isFollowed = true;
    if (!this.position && again) {
      this.#learn(epoch, offset);
      return this.#beginLater();
    }
    if (!this.position) this.#begin(isPosition(since) ? since : {epoch, offset});
    this.#adopt(epoch || (this.#known?.epoch ?? ''));
    const isBack = epoch === this.position.epoch ? offset < this.position.offset : epoch === '';
    if (!isBack) this.#learn(epoch, offset);
    // The messages of a database that was restored have smaller numbers.
    else if (Date.now() - this.#movedAt > OVERTAKEN) this.#setKnown(epoch, offset);
    this.#advance();
    if (this.#isBehind) this.#ask();
  }

  /** A message was pushed. */
  push(content, {epoch, offset}, size) {
    this.#adopt(epoch);
    if (this.position?.epoch === epoch && offset <= this.position.offset) return;
    this.#learn(epoch, offset);
    this.#movedAt = Date.now();
    const isNext = this.position?.epoch === epoch && offset === this.position.offset + 1;
    this.#hold(offset, content, size, isNext);
    if (!this.position) return this.#beginLater();
    this.#advance();
    this.#askLater();
  }

  /** The server has answered `answer` to who was at `asked`. */
  resume(answer, asked) {
    this.isAsked = false;
    const part = answer?.streams && Object.hasOwn(answer.streams, this.name) ? answer.streams[this.name] : undefined;
    if (!part) {
      // It is not followed, or this server or handler has no answer. Otherwise it may have one later.
      const isLater = !answer || ['rate_limited', 'server_error'].includes(answer.code);
      return isLater ? this.#askLater() : this.rest();
    }
    this.isFollowed = true;
    if (part.lost) {
      if (isSame(this.position, asked)) this.#lose(part);
    } else {
      this.#adopt(part.epoch);
      for (const content of part.messages) this.#deliverIfNext(content);
      // What was said of a stream that has gone back, or of another epoch, has turned out to be old.
      const {epoch, offset} = this.position;
      if (this.#known?.epoch !== epoch || this.#known.offset < offset) this.#setKnown(epoch, offset);
    }
    this.#advance();
    const isMoved = !isSame(this.position, asked);
    if (isMoved) this.#tries = 0;
    if (part.more && (isMoved || hasMessages(answer))) this.#ask();
    else this.#askLater(part.more);
  }

  /** Ask for nothing until the server speaks of the stream again. */
  rest() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.isAsked = false;
    this.#tries = 0;
  }

  #begin({epoch, offset}) {
    // What was pushed before was sent to a follower.
    const first = epoch === '' || epoch === this.#known?.epoch ? Math.min(...this.#held.keys()) - 1 : Infinity;
    this.position = {epoch, offset: Math.min(offset, first)};
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  // Nobody may be left who knows where: the process that was asked to follow has gone.
  #beginLater() {
    this.#timer ??= after(BEGUN, () => {
      this.#timer = undefined;
      this.#begin(this.#known);
      this.#advance();
      if (this.#isBehind) this.#ask();
    });
  }

  get #isBehind() {
    return this.#known !== undefined && !isSame(this.#known, this.position);
  }

  // A stream that has had no message is at 0 of no epoch: its first message begins one.
  #adopt(epoch) {
    if (this.position?.epoch === '' && this.position.offset === 0) this.position.epoch = epoch;
  }

  #learn(epoch, offset) {
    this.#setKnown(epoch, this.#known?.epoch === epoch ? Math.max(this.#known.offset, offset) : offset);
  }

  #setKnown(epoch, offset) {
    if (this.#known?.epoch !== epoch) {
      this.#held.clear();
      this.#heldSize = 0;
    }
    this.#known = {epoch, offset};
  }

  #hold(offset, content, size, isNext) {
    const isFull = this.#held.size >= HELD || this.#heldSize + size > HELD_SIZE;
    if (this.#held.has(offset) || isFull && !isNext) return;
    this.#held.set(offset, {content, size});
    this.#heldSize += size;
  }

  #take(offset) {
    const {content, size} = this.#held.get(offset);
    this.#held.delete(offset);
    this.#heldSize -= size;
    return content;
  }

  // Hand over what was held back, as far as there is no gap, and drop what the page has had.
  #advance() {
    if (this.#known?.epoch !== this.position.epoch) return;
    for (const offset of this.#held.keys()) if (offset <= this.position.offset) this.#take(offset);
    // A function of the page may close the socket.
    while (this.#streams.isOpen && this.#held.has(this.position.offset + 1)) {
      this.#deliver(this.#take(this.position.offset + 1));
    }
  }

  #deliverIfNext(payload) {
    const {epoch, offset} = this.position;
    const isNext = isPosition(payload.kept) && isSame(payload.kept, {epoch, offset: offset + 1});
    if (isNext && this.#streams.isOpen) this.#deliver(packWithin(this.within, payload));
  }

  #deliver(content) {
    this.position.offset++;
    this.#movedAt = Date.now();
    this.#streams.deliver(content);
  }

  #lose({epoch, offset}) {
    this.position = {epoch, offset};
    this.#learn(epoch, offset);
    this.#streams.lose(this);
  }

  #ask() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.isAsked || !this.#streams.isOpen) return;
    this.#streams.ask(this);
  }

  // Give what is missing some time to come by itself, each time more.
  #askLater(isForced = false) {
    if (!this.#isBehind && !isForced) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#tries = 0;
    } else if (this.#timer === undefined && !this.isAsked && this.#streams.isOpen) {
      const ms = Math.min(GAP * 2 ** this.#tries++, GAP_LATEST);
      this.#timer = after(ms + Math.random() * ms, () => this.#ask());
    }
  }
}

const isPosition = value => typeof value?.epoch === 'string' && Number.isInteger(value.offset) && value.offset >= 0;
const isPlace = value => isPosition(value) && typeof value.stream === 'string';
const isSame = (one, other) => one.epoch === other.epoch && one.offset === other.offset;
const hasMessages = answer => Object.values(answer.streams).some(part => part.messages.length);

// Of a page with two of one stream, the earlier: nothing is missed.
function printedPositions() {
  const found = new Map();
  for (const element of globalThis.document?.querySelectorAll?.('script[data-stream-positions]') ?? []) {
    attempt(() => {
      for (const {stream, epoch, offset} of JSON.parse(element.textContent)) {
        if (!(found.get(stream)?.offset <= offset)) found.set(stream, {epoch, offset});
      }
    });
  }
  return found;
}

// Which streams of demultiplexers a frame has come through, the outermost first, and what is in it. A message of a stream
// and an answer may have the keys of an envelope, too; an envelope has none of theirs.
function unpack(content) {
  const within = [];
  const isMessage = ({type, ref, kept}) => type !== undefined || ref !== undefined || isPlace(kept);
  while (!isMessage(content) && typeof content.stream === 'string' && isObject(content.payload)) {
    within.push(content.stream);
    content = content.payload;
  }
  return [within, content];
}

const packWithin = (within, content) => within.reduceRight((payload, stream) => ({stream, payload}), content);
const isObject = value => Object.prototype.toString.call(value) === '[object Object]';

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

function isSameRoute(one, other) {
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
  if (!isObject(fields)) {
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
