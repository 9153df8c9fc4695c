// The logic of sockets.js, with a clock and a WebSocket of our own: node --test tests/browser_client.test.mjs
import assert from 'node:assert/strict';
import {webcrypto} from 'node:crypto';
import {getEventListeners} from 'node:events';
import {readFileSync} from 'node:fs';
import {beforeEach, test} from 'node:test';

// What Node 18 lacks.
globalThis.crypto ??= webcrypto;
globalThis.CustomEvent ??= class extends Event {
  constructor(type, {detail = null, ...options} = {}) {
    super(type, options);
    this.detail = detail;
  }
};

// The server's end of a connection. The client's end is what it has in common with a WebSocket.
class Connection {
  static all = [];
  static get last() { return Connection.all.at(-1); }

  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    Connection.all.push(this);
  }

  send(frame) {
    assert.notEqual(this.readyState, 0);
    if (this.readyState === 1) this.sent.push(typeof frame === 'string' ? JSON.parse(frame) : frame);
  }

  close(...args) {
    this.closedWith ??= args;
    this.readyState = Math.max(this.readyState, 2);
  }

  accept() {
    this.readyState = 1;
    this.onopen({});
    return this;
  }

  push(content) {
    const isFrame = typeof content === 'string' || content instanceof ArrayBuffer;
    this.onmessage?.({data: isFrame ? content : JSON.stringify(content)});
  }

  end(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose?.({code, reason});
  }

  // What was sent since the last look.
  take() {
    return this.sent.splice(0);
  }
}

// Timers, and the time of day. They part ways while a laptop sleeps.
const clock = {
  now: 0,
  timers: new Map(),
  lastId: 0,
  set(fn, ms, every) {
    this.timers.set(++this.lastId, {fn, at: this.now + ms, every});
    return this.lastId;
  },
  advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const [id, timer] = [...this.timers].sort((a, b) => a[1].at - b[1].at)[0] ?? [];
      if (!timer || timer.at > end) break;
      this.now = timer.at;
      timer.every ? timer.at += timer.every : this.timers.delete(id);
      timer.fn();
    }
    this.now = end;
  },
  asleep: 0,
};
globalThis.setTimeout = (fn, ms) => clock.set(fn, ms);
globalThis.setInterval = (fn, ms) => clock.set(fn, ms, ms);
globalThis.clearTimeout = globalThis.clearInterval = id => clock.timers.delete(id);
Date.now = () => clock.now + clock.asleep;

// A page.
const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
const visit = href => { globalThis.location = new URL(href); };
visit('https://example.com/room/lobby/?a=1#b');
globalThis.document = {hidden: false};
globalThis.WebSocket = Connection;
const happens = (type, fields = {}) => page.dispatchEvent(Object.assign(new Event(type), fields));

// Node takes a .js file for a module only if a package.json says so, and a browser needs none.
const readFile = path => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const read = name => readFile(`sockets/static/sockets/${name}`);
const source = read('sockets.js');
const load = async extra => import(`data:text/javascript,${encodeURIComponent(source + extra)}`);
const {SocketRouter, SocketError} = await load('');

let random, reported, warnings, socket;
Math.random = () => random;
globalThis.reportError = error => reported.push(error.message);
console.warn = text => warnings.push(text);

beforeEach(() => {
  socket?.close();
  random = 0.5;
  [reported, warnings, Connection.all, document.hidden] = [[], [], [], false];
  delete document.querySelectorAll;
  assert.equal(clock.timers.size, 0, 'A closed socket leaves no timer behind.');
});

function connect(options) {
  socket = new SocketRouter('/room/lobby/', options);
  return Connection.last.accept();
}

// The next connection, once its delay is over.
function reconnected() {
  while (socket.state === 'waiting') clock.advance(1);
  return Connection.last.accept();
}

// A request whose failure may go unnoticed.
function ask(...args) {
  const answer = socket.request(...args);
  answer.catch(() => {});
  return answer;
}

function details(type) {
  const seen = [];
  socket.addEventListener(type, event => seen.push(event.detail));
  return seen;
}

// How a promise has ended, or 'pending'.
async function outcome(promise) {
  return Promise.race([promise.then(value => value, error => error), new Promise(setImmediate).then(() => 'pending')]);
}

const codeOf = async promise => (await outcome(promise)).code;
const types = frames => frames.map(frame => frame.type);


test('a frame goes to the route that equals its type', () => {
  const connection = connect(), seen = [];
  socket.route('CHAT', (content, self) => seen.push(content.text, self === socket));
  connection.push({type: 'CHAT', text: 'hi'});
  assert.deepEqual(seen, ['hi', true]);
});

test('a regular expression matches from the start, whatever its flags are', () => {
  for (const pattern of [/GAME_.+/, /GAME_.+/g, /GAME_.+/y, /game_.+/i]) {
    const connection = connect(), seen = [];
    pattern.lastIndex = 3;
    socket.route(pattern, content => seen.push(content.type));
    for (const type of ['GAME_OVER', 'MY_GAME_OVER', 'GAME_', 'GAME_ON', 5, undefined]) connection.push({type});
    assert.deepEqual(seen, ['GAME_OVER', 'GAME_ON']);
    assert.equal(pattern.lastIndex, 3);
    socket.close();
  }
});

test('the route defined last wins, and default takes the rest', () => {
  const connection = connect(), seen = [];
  socket.route('A', () => seen.push('first')).route(/A|B/, () => seen.push('pattern'));
  connection.push({type: 'A'});
  socket.default(content => seen.push(content)).route('A', () => seen.push('last'));
  for (const type of ['A', 'B', 'C']) connection.push({type});
  connection.push({connected: true});
  assert.deepEqual(seen, ['pattern', 'last', 'pattern', {type: 'C'}, {connected: true}]);
  assert.deepEqual(warnings, []);
});

test('listeners hear beside the route and beside each other, in order, until they are taken off', () => {
  const connection = connect(), seen = [];
  const note = name => () => seen.push(name);
  const [site, page] = [note('site'), note('page')];
  socket.on('WATCHERS', site).on('WATCHERS', page).on(/WATCH.+/, page).on('WATCHERS', site).on('OTHER', note('other'));
  socket.default(note('default'));
  connection.push({type: 'WATCHERS'});
  assert.deepEqual(seen.splice(0), ['default', 'site', 'page', 'page']);
  socket.route('WATCHERS', note('first')).route('WATCHERS', note('second'));
  connection.push({type: 'WATCHERS'});
  assert.deepEqual(seen.splice(0), ['second', 'site', 'page', 'page']);
  // Only what was added with the same pattern and function goes.
  socket.off('WATCHERS', page).off('WATCHERS', note('site')).off('/WATCH.+/', page).off(/NOTHING/, page);
  connection.push({type: 'WATCHERS'});
  assert.deepEqual(seen.splice(0), ['second', 'site', 'page']);
  socket.off(/WATCH.+/, page).off('WATCHERS', site);
  connection.push({type: 'WATCHERS'});
  assert.deepEqual(seen, ['second']);
});

test('a listener is enough for a frame, gets the socket, and may take itself off', () => {
  const connection = connect(), seen = [];
  const once = (content, self) => { seen.push(content.n); self.off('CHAT', once); };
  socket.on('CHAT', once).on('CHAT', ({n}) => seen.push(n));
  for (const n of [1, 2]) connection.push({type: 'CHAT', n});
  assert.deepEqual(seen, [1, 1, 2]);
  assert.deepEqual(warnings, []);
});

test('what one of them raises keeps no other from hearing', () => {
  const connection = connect(), seen = [];
  const fail = name => () => { throw new Error(name); };
  socket.route('CHAT', fail('route')).on('CHAT', fail('listener')).on('CHAT', () => seen.push('heard'));
  connection.push({type: 'CHAT'});
  assert.deepEqual([seen, reported], [['heard'], ['route', 'listener']]);
});

test('listeners are no part of an answer', async () => {
  const connection = connect();
  socket.on(/.*/, () => assert.fail('It was routed.'));
  const answer = ask('BET');
  connection.push({type: 'BET_TAKEN', ref: connection.take()[0].ref});
  assert.equal((await answer).type, 'BET_TAKEN');
});

const bytes = (...parts) => Uint8Array.from(parts.flatMap(
  part => typeof part === 'string' ? [...new TextEncoder().encode(part)] : [...part]));
const framed = (envelope, ...parts) => bytes(`\0${JSON.stringify(envelope)}\0`, ...parts);
const bytesOf = async frame => [...new Uint8Array(frame instanceof Blob ? await frame.arrayBuffer() : frame)];

test('bytes are sent as they are, of whatever kind they are', async () => {
  const connection = connect();
  const data = bytes([0, 1, 2, 255]);
  for (const kind of [data, data.buffer, new DataView(data.buffer, 1, 2), bytes([9, 0, 1, 2, 255]).subarray(1),
                      new Uint16Array(data.buffer), new Uint8Array()]) socket.send(kind);
  const frames = connection.take();
  assert.equal(connection.binaryType, 'arraybuffer');
  assert.deepEqual(await Promise.all(frames.map(bytesOf)),
                   [[0, 1, 2, 255], [0, 1, 2, 255], [1, 2], [0, 1, 2, 255], [0, 1, 2, 255], []]);
});

test('what looks as if it had an envelope gets one, and so does a Blob, for which nobody can tell', async () => {
  const connection = connect();
  socket.send(bytes('\0{"ref":1}\0data'));
  socket.send(new Blob(['data']));
  assert.deepEqual(await Promise.all(connection.take().map(bytesOf)), [
    [...framed({ref: null}, '\0{"ref":1}\0data')], [...framed({ref: null}, 'data')]]);
});

test('bytes that wait are those that were given, and are sent in their place', async () => {
  socket = new SocketRouter();
  const data = bytes([1, 2, 3]);
  socket.send('BEFORE');
  socket.send(data);
  data.fill(0);
  socket.send('AFTER');
  const [before, sent, last] = Connection.last.accept().take();
  assert.deepEqual([before.type, await bytesOf(sent), last.type], ['BEFORE', [1, 2, 3], 'AFTER']);
});

test('a request with bytes is resolved by the answer with its ref, which may be bytes', async () => {
  const connection = connect(), routed = [];
  socket.bytes(data => routed.push(data)).default(content => routed.push(content));
  const [one, two, three, four] = [ask(bytes('ab')), ask(new Blob(['cd'])), ask('PICTURE', {n: 1}), ask(bytes('ef'))];
  const frames = connection.take();
  const ref = async frame => JSON.parse(new TextDecoder().decode(bytes(await bytesOf(frame))).split('\0')[1]).ref;
  const refs = [await ref(frames[0]), await ref(frames[1]), frames[2].ref, await ref(frames[3])];
  assert.deepEqual(await bytesOf(frames[0]), [...framed({ref: refs[0]}, 'ab')]);
  assert.deepEqual(await bytesOf(frames[1]), [...framed({ref: refs[1]}, 'cd')]);
  assert.equal(new Set(refs).size, 4);
  connection.push(framed({ref: refs[2]}, [0, 7]).buffer);
  connection.push(framed({ref: refs[1]}).buffer);
  connection.push({type: 'TAKEN', ref: refs[0]});
  connection.push({type: 'ERROR', code: 'too_large', details: 'A frame has at most 1 bytes.', ref: refs[3]});
  assert.equal((await one).type, 'TAKEN');
  assert.deepEqual([await two, await three], [bytes(), bytes([0, 7])]);
  assert.equal(await codeOf(four), 'too_large');
  // One that comes too late is no frame of the page's.
  connection.push(framed({ref: refs[0]}, 'late').buffer);
  assert.deepEqual([routed, warnings], [[], []]);
});

test('a request with bytes is sent again once, and marked, as any other', async () => {
  const connection = connect();
  const lost = [ask(bytes('ab')), ask(new Blob(['cd']))];
  const [first] = connection.take();
  connection.end();
  const frames = reconnected().take();
  const again = await Promise.all(frames.map(bytesOf));
  const {ref} = JSON.parse(new TextDecoder().decode(first).split('\0')[1]);
  assert.deepEqual(again[0], [...framed({ref, resent: true}, 'ab')]);
  assert.match(String.fromCharCode(...again[1]), /^\0\{"ref":".+","resent":true\}\0cd$/);
  Connection.last.end();
  assert.deepEqual(await Promise.all(lost.map(codeOf)), ['connection_lost', 'connection_lost']);
});

test('the options of a request with bytes are those of any other', async () => {
  connect({heartbeat: Infinity});
  const controller = new AbortController();
  const [late, aborted] = [ask(bytes('ab'), {timeout: 10}), ask(bytes('ab'), {signal: controller.signal})];
  controller.abort();
  clock.advance(10);
  assert.equal(await codeOf(aborted), 'aborted');
  assert.deepEqual((await outcome(late)).details, 'No answer to bytes within 10 ms.');
});

test('binary frames of the server go to bytes and its listeners', () => {
  const connection = connect(), seen = [];
  connection.push(bytes('ab').buffer);
  assert.deepEqual(warnings, ['No route for binary frames. Add socket.bytes(fn).']);
  socket.default(() => assert.fail('It is no content.')).route(/.*/, () => assert.fail('It has no type.'));
  const listener = data => seen.push(['on', ...data]);
  socket.bytes(() => seen.push('replaced')).bytes((data, self) => seen.push([self === socket, ...data]));
  socket.on(Uint8Array, listener);
  connection.push(bytes([0, 1]).buffer);
  assert.deepEqual(seen.splice(0), [[true, 0, 1], ['on', 0, 1]]);
  socket.off(Uint8Array, listener);
  // What had to have an envelope for it.
  connection.push(framed({ref: null}, '\0{"ref":1}\0').buffer);
  connection.push(new ArrayBuffer(0));
  assert.deepEqual(seen, [[true, ...bytes('\0{"ref":1}\0')], [true]]);
  connection.push(bytes('\0{"ref":').buffer);
  assert.equal(reported.length, 1);
  assert.equal(warnings.length, 1);
});

test('large frames are sent one at a time, each when the server has handled the one before', async () => {
  socket = new SocketRouter();
  for (let n = 0; n < 3; n++) socket.send(new Uint8Array(2 ** 20 + 1));
  const connection = Connection.last.accept();
  for (let n = 0; n < 3; n++) {
    const [picture, ping] = connection.take();
    assert.equal(picture.length, 2 ** 20 + 1);
    assert.equal(ping.type, 'PING');
    connection.push({type: 'ACK', ref: ping.ref});
  }
});

test('what is large is handled before the next is sent, also while there is a connection', async () => {
  const connection = connect();
  const answers = [1, 2].map(() => ask(new Uint8Array(2 ** 20)));
  socket.send('AFTER');
  const [picture, ping] = connection.take();
  assert.deepEqual([picture.length > 2 ** 20, ping.type], [true, 'PING']);
  connection.push({type: 'ACK', ref: ping.ref});
  const [second, another] = connection.take();
  assert.deepEqual([second.length > 2 ** 20, another.type], [true, 'PING']);
  // Who is lost has not to be waited for.
  connection.end();
  const frames = reconnected().take();
  assert.deepEqual(frames.map(frame => frame.type ?? frame.length > 2 ** 20), [true, 'PING']);
  Connection.last.push({type: 'ACK', ref: frames[1].ref});
  assert.deepEqual(Connection.last.take().map(frame => frame.type ?? frame.length > 2 ** 20), [true, 'PING']);
  socket.close();
  assert.deepEqual(await Promise.all(answers.map(codeOf)), ['closed', 'closed']);
  socket.open();
  socket.send('NEW');
  assert.deepEqual(types(Connection.last.accept().take()), ['NEW']);
});

test('many small frames are as good as a large one', () => {
  const connection = connect();
  for (let n = 0; n < 30; n++) socket.send('NOTE', {text: 'x'.repeat(100000)});
  assert.deepEqual(types(connection.take()), [...Array(11).fill('NOTE'), 'PING']);
});

test('a server that still takes what is sent has not fallen silent', () => {
  const connection = connect();
  connection.bufferedAmount = 5e6;
  clock.advance(29999);
  for (const left of [4e6, 2e6, 0]) {
    connection.bufferedAmount = left;
    clock.advance(10000);
    assert.equal(socket.state, 'open');
  }
  clock.advance(1);
  assert.equal(socket.state, 'waiting');
});

test('a frame for which there is no route is told to the console', () => {
  connect().push({type: 'CHAT'});
  assert.deepEqual(warnings, ["No route for the type CHAT. Add socket.route('CHAT', fn) or socket.default(fn)."]);
});

test('a function that raises is reported and the next frame arrives', () => {
  const connection = connect(), seen = [];
  socket.route('BAD', () => { throw new Error('a bug'); }).route('GOOD', () => seen.push('good'));
  connection.push({type: 'BAD'});
  connection.push('no JSON');
  connection.push('null');
  connection.push({type: 'GOOD'});
  assert.deepEqual(seen, ['good']);
  assert.equal(reported[0], 'a bug');
  assert.equal(reported.length, 3);
  assert.equal(socket.state, 'open');
});

test('misuse says what to do', async () => {
  connect();
  const misuses = [
    [() => socket.route(5, () => {}), /route\('CHAT', fn\)/],
    [() => socket.route('CHAT'), /route\(CHAT, fn\) needs a function, not undefined/],
    [() => socket.default('fn'), /default\(fn\) needs a function/],
    [() => socket.on(5, () => {}), /on\('CHAT', fn\)/],
    [() => socket.on('CHAT'), /on\(CHAT, fn\) needs a function, not undefined/],
    [() => socket.off('CHAT'), /off\(CHAT, fn\) needs a function, not undefined/],
    [() => socket.on(ArrayBuffer, () => {}), /on\('CHAT', fn\)/],
    [() => socket.bytes(), /bytes\(fn\) needs a function/],
    [() => socket.on(Uint8Array), /on\(Uint8Array, fn\) needs a function/],
    [() => socket.send(new Uint8Array(1), {name: 'cat.png'}), /no fields, such as name/],
    [() => socket.send(), /A type is a string/],
    [() => socket.send('CHAT', 'hello'), /Fields are an object such as \{text: 'Hello'\}, not hello/],
    [() => socket.send('CHAT', null), /Fields are an object/],
    [() => socket.send('CHAT', ['a']), /Fields are an object/],
    [() => socket.send('CHAT', new Map()), /Fields are an object/],
    [() => socket.send('CHAT', {ref: 5}), /ref is not yours to set/],
    [() => socket.send('CHAT', {n: 5n}), TypeError],
    [() => new SocketRouter('http://['), /A socket is at a path or an address/],
    [() => new SocketRouter('mailto:you'), /A socket is at a path or an address/],
    [() => new SocketRouter('/', {timout: 5}), /no option timout. There are timeout, heartbeat/],
    [() => new SocketRouter('/', {timeout: '5'}), /timeout is a number such as 10000, not 5/],
    [() => new SocketRouter('/', {heartbeat: NaN}), /heartbeat is a number/],
    [() => new SocketRouter('/', {minDelay: 0}), /minDelay is a number/],
    [() => new SocketRouter('/', {WebSocket: 'ws'}), /WebSocket needs a function/],
    [() => new SocketRouter('/', {final: 4404}), /final is a list of close codes such as \[4404\], not 4404/],
    [() => new SocketRouter('/', {final: ['4404']}), /final is a list/],
  ];
  for (const [misuse, message] of misuses) {
    assert.throws(misuse, message);
    assert.throws(misuse, TypeError);
  }
  await assert.rejects(socket.request('BET', 5), TypeError);
  await assert.rejects(socket.request('BET', {}, {timeout: '5'}), TypeError);
  await assert.rejects(socket.request(new Uint8Array(1), {name: 'cat.png'}), /no fields, such as name/);
  assert.equal(Connection.all.length, 1);
});

test('a path is one of the page, and an address is taken as it is', () => {
  const urls = [[undefined, 'wss://example.com/room/lobby/'], ['/a/?b=c#d', 'wss://example.com/a/?b=c'],
                ['ws://other.example/a/', 'ws://other.example/a/'], ['https://other.example', 'wss://other.example/'],
                [new URL('http://other.example/'), 'ws://other.example/']];
  for (const [path, url] of urls) {
    socket = new SocketRouter(path);
    assert.equal(Connection.last.url, url);
    socket.close();
  }
});

test('a path is one of the own host, whatever the page and the path look like', () => {
  const pages = [
    ['https://example.com/room/?http=1#http', undefined, 'wss://example.com/room/'],
    ['http://http.example:8000/#', undefined, 'ws://http.example:8000/'],
    ['https://example.com//other.example/x/', undefined, 'wss://example.com//other.example/x/'],
    ['https://example.com//other.example/x/?q#h', 'y/', 'wss://example.com//other.example/x/y/'],
    ['https://example.com/', '//other.example/x/', 'wss://example.com//other.example/x/'],
    ['https://example.com/', '/\\other.example/x/', 'wss://example.com//other.example/x/'],
    ['https://example.com/', '\\\\other.example/x/', 'wss://example.com//other.example/x/'],
    ['https://example.com/', ' \t//other.example/x/', 'wss://example.com//other.example/x/'],
    ['https://example.com/', '/\t/other.example/x/', 'wss://example.com//other.example/x/'],
    ['https://example.com/', '///other.example/x/', 'wss://example.com///other.example/x/'],
    ['https://example.com/a/b/?q', '../c/?d', 'wss://example.com/a/c/?d'],
    ['https://example.com/a/b/?q', '?d', 'wss://example.com/a/b/?d'],
    ['https://user:word@example.com/a/', 'b/', 'wss://example.com/a/b/'],
    ['https://example.com/a:b/', undefined, 'wss://example.com/a:b/'],
    ['https://example.com/', '/@other.example/', 'wss://example.com/@other.example/'],
  ];
  try {
    for (const [href, path, url] of pages) {
      visit(href);
      socket = new SocketRouter(path);
      assert.equal(Connection.last.url, url);
      socket.close();
    }
    for (const href of ['file:///room/', 'about:blank', 'data:text/html,']) {
      visit(href);
      for (const path of [undefined, '/room/', '//example.com/']) {
        assert.throws(() => new SocketRouter(path), /'wss:\/\/example.com\/'/);
      }
      socket = new SocketRouter('wss://example.com/room/');
      assert.equal(Connection.last.url, 'wss://example.com/room/');
      socket.close();
    }
    // Pages that have an origin and no path: of a blob, and what a page of ours writes into a frame (srcdoc).
    for (const href of ['blob:https://example.com/0b1c', 'about:srcdoc']) {
      visit(href);
      globalThis.origin = 'https://example.com';
      for (const path of [undefined, 'room/', '../room/', '?a']) {
        assert.throws(() => new SocketRouter(path), /'wss:\/\/example.com\/'/);
      }
      socket = new SocketRouter('/room/');
      assert.equal(Connection.last.url, 'wss://example.com/room/');
      socket.close();
    }
  } finally {
    delete globalThis.origin;
    visit('https://example.com/room/lobby/?a=1#b');
  }
});

test('pages need no import', () => {
  assert.equal(globalThis.SocketRouter, SocketRouter);
  assert.equal(globalThis.SocketError, SocketError);
});

test('what is sent before there is a connection is sent in order when there is one', () => {
  socket = new SocketRouter();
  const fields = {n: 1};
  socket.send('FIRST', fields);
  fields.n = 2;
  ask('SECOND');
  socket.send('THIRD');
  socket.addEventListener('open', () => socket.send('FOURTH'));
  const connection = Connection.last.accept();
  socket.send('FIFTH');
  const frames = connection.take();
  assert.deepEqual(types(frames), ['FIRST', 'SECOND', 'THIRD', 'FOURTH', 'FIFTH']);
  assert.deepEqual(frames[0], {type: 'FIRST', n: 1});
  assert.deepEqual(Object.keys(frames[1]), ['type', 'ref']);
});

test('a full queue takes nothing more and loses nothing', async () => {
  socket = new SocketRouter('/', {queueSize: 2});
  socket.send('FIRST');
  const answer = ask('SECOND');
  assert.throws(() => socket.send('THIRD'), {name: 'SocketError', code: 'queue_full'});
  assert.equal(await codeOf(ask('THIRD')), 'queue_full');
  assert.deepEqual(types(Connection.last.accept().take()), ['FIRST', 'SECOND']);
  assert.equal(await outcome(answer), 'pending');
});

test('a long queue is sent in parts, each when the server has handled the one before', () => {
  socket = new SocketRouter();
  const send = (from, to) => { for (let n = from; n < to; n++) socket.send('NOTE', {n}); };
  const numbers = frames => frames.filter(({type}) => type === 'NOTE').map(({n}) => n);
  const upTo = count => [...Array(count).keys()];
  send(0, 120);
  const connection = Connection.last.accept(), all = [];
  const take = () => {
    const frames = connection.take();
    all.push(...frames);
    return frames;
  };
  const first = take();
  assert.deepEqual(types(first).slice(49), ['NOTE', 'PING']);
  send(120, 130);
  connection.push({type: 'CHAT'});
  assert.deepEqual(take(), []);
  connection.push({type: 'ACK', ref: first[50].ref});
  assert.deepEqual(types(take()).slice(49), ['NOTE', 'PING']);
  // Who does not answer that, but says something else, gets the next part all the same.
  clock.advance(9999);
  connection.push({type: 'CHAT'});
  assert.deepEqual(take(), []);
  clock.advance(1);
  assert.deepEqual(types(take()).filter(type => type !== 'NOTE'), []);
  send(130, 131);
  take();
  assert.deepEqual(numbers(all), upTo(131));
});

test('what is left of a long queue is sent on the next connection', () => {
  socket = new SocketRouter();
  for (let n = 0; n < 60; n++) ask('BET', {n});
  Connection.last.accept().end();
  assert.equal(clock.timers.size, 60 + 2);
  const [again, ping] = [reconnected(), 50];
  const first = again.take();
  again.push({type: 'ACK', ref: first[ping].ref});
  const frames = [...first.slice(0, ping), ...again.take()];
  assert.deepEqual(frames.map(({n}) => n), [...Array(60).keys()]);
  assert.deepEqual(frames.map(({resent = false}) => resent), [...Array(50).fill(true), ...Array(10).fill(false)]);
});

test('what is sent while the connection closes waits for the next one', () => {
  const connection = connect();
  connection.readyState = 2;
  for (let n = 0; n < 120; n++) socket.send('LATE');
  connection.end(1012);
  const again = reconnected();
  assert.deepEqual(types(again.sent).slice(49), ['LATE', 'PING']);
  // The rest of the queue, too.
  again.readyState = 2;
  again.push({type: 'ACK', ref: again.sent.at(-1).ref});
  again.end(1012);
  const third = reconnected();
  third.push({type: 'ACK', ref: third.sent.at(-1).ref});
  assert.equal(types(third.sent).filter(type => type === 'LATE').length, 70);
});

test('a request is resolved by the answer with its ref', async () => {
  const connection = connect(), routed = [];
  socket.default(content => routed.push(content));
  const [one, two] = [ask('BET', {amount: 5}), ask('FOLD')];
  const [bet, fold] = connection.take();
  assert.deepEqual({...bet, ref: null}, {type: 'BET', amount: 5, ref: null});
  connection.push({type: 'ACK', ref: fold.ref});
  connection.push({type: 'BET_TAKEN', total: 9, ref: bet.ref});
  assert.deepEqual(await one, {type: 'BET_TAKEN', total: 9, ref: bet.ref});
  assert.equal((await two).type, 'ACK');
  assert.deepEqual(routed, []);
});

test('a request is rejected by an ERROR with its ref', async () => {
  const connection = connect(), problems = details('error');
  const answer = ask('BET');
  const content = {type: 'ERROR', code: 'invalid_content', details: 'Look.', errors: {amount: ['Too much.']},
                   ref: connection.take()[0].ref};
  connection.push(content);
  const error = await outcome(answer);
  assert.ok(error instanceof SocketError && error instanceof Error);
  assert.equal(String(error), 'SocketError: Look.');
  assert.deepEqual({code: error.code, details: error.details, errors: error.errors, content: error.content},
                   {code: 'invalid_content', details: 'Look.', errors: content.errors, content});
  assert.deepEqual(problems, []);
});

test('a request is rejected after its timeout, and a later answer is dropped', async () => {
  const connection = connect({heartbeat: Infinity});
  socket.default(() => assert.fail('It was routed.'));
  const [usual, short, endless] = [
    ask('BET'), ask('BET', {}, {timeout: 10}), ask('BET', {}, {timeout: Infinity})];
  clock.advance(10);
  assert.equal(await codeOf(short), 'timeout');
  clock.advance(9989);
  assert.equal(await outcome(usual), 'pending');
  clock.advance(1);
  assert.equal(await codeOf(usual), 'timeout');
  const refs = connection.take().map(frame => frame.ref);
  connection.push({type: 'BET_TAKEN', ref: refs[0]});
  connection.push({type: 'ERROR', code: 'server_error', ref: refs[1]});
  clock.advance(10 ** 10);
  connection.push({type: 'ACK', ref: refs[2]});
  assert.equal((await endless).type, 'ACK');
  assert.deepEqual(warnings, []);
});

test('a request that timed out in the queue is not sent any more', async () => {
  socket = new SocketRouter('/', {timeout: 5});
  const answer = ask('BET');
  clock.advance(5);
  assert.equal(await codeOf(answer), 'timeout');
  assert.deepEqual(Connection.last.accept().take(), []);
});

test('a request can be aborted, before and after it is sent', async () => {
  socket = new SocketRouter();
  const controllers = [new AbortController(), new AbortController(), new AbortController()];
  const [queued, sent] = controllers.slice(0, 2).map(({signal}) => ask('BET', {}, {signal}));
  controllers[0].abort();
  assert.equal(await codeOf(queued), 'aborted');
  const connection = Connection.last.accept();
  assert.equal(connection.take().length, 1);
  controllers[1].abort();
  assert.equal(await codeOf(sent), 'aborted');
  assert.equal(await codeOf(ask('BET', {}, {signal: controllers[0].signal})), 'aborted');
  assert.deepEqual(connection.take(), []);
  const answered = ask('BET', {}, {signal: controllers[2].signal});
  assert.equal(getEventListeners(controllers[2].signal, 'abort').length, 1);
  connection.push({type: 'ACK', ref: connection.take()[0].ref});
  assert.equal((await answered).type, 'ACK');
  assert.equal(getEventListeners(controllers[2].signal, 'abort').length, 0);
});

test('no two pages make the same ref, and no ref is made twice', async () => {
  const other = await load('\n');
  const connection = connect();
  for (let n = 0; n < 3; n++) ask('BET');
  const refs = connection.take().map(frame => frame.ref);
  connection.end();
  ask('BET');
  refs.push(...reconnected().take().map(frame => frame.ref));
  const stranger = new other.SocketRouter();
  stranger.request('BET').catch(() => {});
  refs.push(Connection.last.accept().take()[0].ref);
  stranger.close();
  // The first three were sent twice.
  assert.equal(new Set(refs).size, 5);
  assert.equal(new Set(refs.map(ref => ref.split('-')[0])).size, 2);
});

test('the ref of another page is no answer of ours', () => {
  const connection = connect(), seen = [];
  socket.route('SAID', content => seen.push(content.ref));
  connection.push({type: 'SAID', ref: 'theirs-1'});
  assert.deepEqual(seen, ['theirs-1']);
});

test('it comes back after every code but the final ones', () => {
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000]) {
    const connection = connect(), closes = details('close');
    connection.end(code, 'why');
    assert.equal(socket.state, 'waiting');
    assert.deepEqual(closes, [{code, reason: 'why', reconnects: true}]);
    clock.advance(1000);
    assert.equal(Connection.all.length, 2);
    socket.close();
    Connection.all = [];
  }
});

test('it stays away after a final code until it is told otherwise', async () => {
  for (const code of [4400, 4401, 4403]) {
    const connection = connect(), closes = details('close');
    const answer = ask('BET');
    connection.end(code);
    assert.equal(socket.state, 'closed');
    assert.deepEqual(closes, [{code, reason: '', reconnects: false}]);
    assert.equal(await codeOf(answer), 'closed');
    happens('online');
    clock.advance(10 ** 6);
    assert.equal(Connection.all.length, 1);
    socket.open();
    assert.equal(socket.state, 'connecting');
    assert.deepEqual(Connection.last.accept().take(), []);
    socket.close();
    Connection.all = [];
  }
});

test('a delay is anywhere between nothing and twice what it was before, up to a limit', () => {
  const connection = connect(), states = details('state');
  random = 0.75;
  connection.end();
  for (let n = 0; n < 7; n++) {
    clock.advance(states.at(-1).delay - 1);
    assert.equal(socket.state, 'waiting');
    clock.advance(1);
    assert.equal(socket.state, 'connecting');
    Connection.last.end();
  }
  assert.deepEqual(states.filter(({state}) => state === 'waiting').map(({delay}) => delay / random),
                   [1000, 2000, 4000, 5000, 5000, 5000, 5000, 5000]);
  random = 0;
  clock.advance(30000);
  Connection.last.end();
  assert.equal(states.at(-1).delay, 0);
});

test('delays begin anew when a connection has proved good, not when it has opened', () => {
  random = 1;
  const states = details.bind(null, 'state');
  connect({heartbeat: Infinity}).end();
  const seen = states();
  const lose = (...frames) => {
    const connection = reconnected();
    for (const frame of frames) connection.push(frame);
    connection.end();
    return seen.at(-1).delay;
  };
  assert.equal(lose(), 2000);
  // What is said to who is not let in.
  assert.equal(lose({type: 'ERROR', code: 'server_error'}), 4000);
  assert.equal(lose({type: 'RECONNECT'}), 5000);
  assert.equal(lose({type: 'PING'}), 1000);
  assert.equal(lose(), 2000);
});

test('who was too much comes back late', () => {
  random = 1;
  const connection = connect(), states = details('state');
  connection.push({type: 'ACK'});
  connection.push({type: 'ERROR', code: 'rate_limited', details: 'You have 3 connections; close one first.'});
  connection.end(4429);
  assert.equal(states.at(-1).delay, 30000);
  reconnected().push({type: 'PING'});
  Connection.last.end();
  assert.equal(states.at(-1).delay, 1000);
});

test('who is told when to come back does so then, and a little later', () => {
  random = 0.5;
  const connection = connect(), states = details('state');
  const delay = (...end) => {
    Connection.last.end(...end);
    return states.at(-1).delay;
  };
  assert.equal(delay(1013, 'retry=7.4'), 7525);
  clock.advance(7524);
  assert.equal(Connection.last, connection);
  clock.advance(1);
  assert.notEqual(Connection.last, connection);
  // It is no failure: the first delay of our own is the first one.
  Connection.last.accept();
  assert.equal(delay(1013, 'retry=0'), 125);
  reconnected();
  assert.equal(delay(), 500);
});

test('a page that is seen again keeps to the time that the server has given it', () => {
  const connection = connect();
  connection.end(1013, 'retry=7.4');
  for (const type of ['visibilitychange', 'online']) happens(type);
  clock.advance(7000);
  happens('visibilitychange');
  assert.equal(Connection.last, connection);
  clock.advance(525);
  assert.notEqual(Connection.last, connection);
  // Another delay is not the server's.
  const next = Connection.last.accept();
  next.end();
  happens('visibilitychange');
  assert.notEqual(Connection.last, next);
  // Whoever is told to open does.
  const last = Connection.last.accept();
  last.end(1013, 'retry=7.4');
  socket.open();
  assert.notEqual(Connection.last, last);
});

test('no server sends a client away for long, and what is no number of seconds is nothing', () => {
  random = 1;
  connect();
  const states = details('state');
  Connection.last.end(1013, 'retry=' + '9'.repeat(400));
  assert.equal(states.at(-1).delay, 300250);
  const delays = [];
  for (const reason of ['', 'retry=', 'retry=-1', 'retry=1e3', 'retry=1.', 'retry=Infinity', 'retry=7 ', 'Retry=7', '7']) {
    reconnected().push({type: 'PING'});
    Connection.last.end(1013, reason);
    delays.push(states.at(-1).delay);
  }
  assert.deepEqual(delays, Array(9).fill(1000));
  // Nor does it count with another code.
  reconnected().push({type: 'PING'});
  Connection.last.end(1012, 'retry=7');
  assert.equal(states.at(-1).delay, 1000);
});

test('a server that sends us away has heard nothing of what we sent', async () => {
  const connection = connect();
  const answer = ask('BET', {amount: 1});
  socket.send('CHAT', {n: 1});
  const aborted = ask('FOLD', {}, {timeout: 100});
  const sent = connection.take();
  clock.advance(100);
  assert.equal(await codeOf(aborted), 'timeout');
  connection.end(1013, 'retry=1');
  socket.send('CHAT', {n: 2});
  assert.equal(await outcome(answer), 'pending');
  // As they were, none of them marked as sent again, before what came later.
  const again = reconnected();
  assert.deepEqual(again.take(), [...sent.slice(0, 2), {type: 'CHAT', n: 2}]);
  again.push({type: 'ACK', ref: sent[0].ref});
  assert.equal((await answer).type, 'ACK');
  // Who has said something has heard us.
  again.end(1013, 'retry=1');
  assert.deepEqual(reconnected().take(), []);
});

test('a request without an answer is sent again once, before what is queued, and marked', async () => {
  const connection = connect();
  const lost = [ask('BET', {amount: 1}), ask('BET', {amount: 2})];
  socket.send('CHAT');
  const [first, second] = connection.take();
  connection.push({type: 'ACK', ref: first.ref});
  connection.end();
  const queued = ask('FOLD');
  const again = reconnected();
  const frames = again.take();
  assert.deepEqual(frames[0], {...second, resent: true});
  assert.deepEqual(frames.slice(1), [{type: 'FOLD', ref: frames[1].ref}]);
  again.end();
  assert.equal(await codeOf(lost[1]), 'connection_lost');
  assert.equal((await lost[0]).type, 'ACK');
  const third = reconnected();
  assert.deepEqual(third.take(), [{type: 'FOLD', ref: frames[1].ref, resent: true}]);
  third.push({type: 'FOLDED', ref: frames[1].ref});
  assert.equal((await queued).type, 'FOLDED');
});

test('an attempt that fails costs a request nothing', async () => {
  const connection = connect({timeout: Infinity});
  const answer = ask('BET');
  connection.end();
  for (let n = 0; n < 5; n++) {
    clock.advance(30000);
    Connection.last.end();
  }
  assert.equal(await outcome(answer), 'pending');
  assert.equal(reconnected().take()[0].resent, true);
});

test('a server that is silent is asked, and any frame of it will do', () => {
  const connection = connect();
  clock.advance(19000);
  connection.push({type: 'CHAT'});
  clock.advance(19999);
  assert.deepEqual(connection.take(), []);
  clock.advance(1);
  const [ping] = connection.take();
  assert.deepEqual(Object.keys(ping), ['type', 'ref']);
  clock.advance(9999);
  connection.push({type: 'ACK', ref: ping.ref});
  clock.advance(19999);
  assert.deepEqual(connection.take(), []);
  assert.equal(socket.state, 'open');
  assert.equal(warnings.length, 1);
});

test('a server that gives no sign of life is left', async () => {
  const connection = connect(), closes = details('close');
  const answer = ask('BET', {}, {timeout: Infinity});
  clock.advance(30000);
  assert.equal(socket.state, 'waiting');
  assert.deepEqual(connection.closedWith, []);
  assert.deepEqual(closes, [
    {code: 1006, reason: 'The server gave no sign of life within 10000 ms.', reconnects: true}]);
  const again = reconnected();
  // Whatever it does now, it is another connection's.
  const [{ref}] = again.take();
  connection.push({type: 'BET_TAKEN', ref});
  connection.end(4401);
  assert.equal(socket.state, 'open');
  assert.equal(await outcome(answer), 'pending');
});

test('a server that does not let us in is left', () => {
  socket = new SocketRouter();
  const closes = details('close');
  clock.advance(10000);
  assert.equal(socket.state, 'waiting');
  // There was none that could be closed.
  assert.deepEqual(closes, []);
});

test("the server's PING is answered", () => {
  const connection = connect();
  connection.push({type: 'PING'});
  assert.deepEqual(connection.take(), [{type: 'PING'}]);
});

test('a laptop that slept asks at once', () => {
  const connection = connect();
  clock.advance(5000);
  clock.asleep += 3600000;
  clock.advance(5000);
  assert.deepEqual(types(connection.take()), ['PING']);
  clock.advance(10000);
  assert.equal(socket.state, 'waiting');
});

test('a laptop that slept, and a page that is seen again, do not wait for the next attempt', () => {
  const wakeUps = [
    () => { clock.asleep += 3600000; clock.advance(5000); },
    () => happens('visibilitychange'),
    () => happens('online'),
    () => happens('pageshow', {persisted: true}),
    () => socket.open(),
  ];
  for (const wakeUp of wakeUps) {
    random = 1;
    connect({minDelay: 20000, maxDelay: 20000}).end();
    Connection.all = [];
    clock.advance(5000);
    assert.equal(socket.state, 'waiting');
    wakeUp();
    assert.equal(socket.state, 'connecting');
    wakeUp();
    assert.equal(Connection.all.length, 1);
    socket.close();
  }
});

test('a page that is seen again asks, one that is hidden does not', () => {
  const connection = connect();
  document.hidden = true;
  happens('visibilitychange');
  happens('pageshow', {persisted: false});
  assert.deepEqual(connection.take(), []);
  document.hidden = false;
  happens('visibilitychange');
  assert.deepEqual(types(connection.take()), ['PING']);
  happens('online');
  assert.deepEqual(types(connection.take()), ['PING']);
});

test('a page that is offline tries nothing until it is online', async () => {
  const connection = connect(), states = details('state'), closes = details('close');
  const answer = ask('BET', {}, {timeout: Infinity});
  happens('offline');
  happens('offline');
  happens('visibilitychange');
  clock.advance(10 ** 6);
  socket.send('CHAT');
  assert.deepEqual(connection.closedWith, []);
  assert.deepEqual(closes, [{code: 1006, reason: 'The page went offline.', reconnects: true}]);
  happens('online');
  const frames = Connection.last.accept().take();
  assert.deepEqual(frames.map(({type, resent}) => [type, resent]), [['BET', true], ['CHAT', undefined]]);
  assert.deepEqual(states.map(({state}) => state), ['offline', 'connecting', 'open']);
  assert.equal(await outcome(answer), 'pending');
  assert.equal(Connection.all.length, 2);
});

test('a page that goes into the back button\'s cache closes, and comes back when it does', () => {
  const connection = connect();
  happens('pagehide', {persisted: true});
  assert.deepEqual(connection.closedWith, []);
  assert.equal(socket.state, 'offline');
  happens('pageshow', {persisted: true});
  Connection.last.accept();
  assert.equal(socket.state, 'open');
});

test('going offline ends the wait for an attempt, too', () => {
  connect().end();
  happens('offline');
  clock.advance(10 ** 6);
  assert.equal(Connection.all.length, 1);
});

test('close() closes and stays closed, and open() opens', async () => {
  const connection = connect(), closes = details('close');
  const answer = ask('BET');
  socket.send('BYE');
  socket.close(4000, 'enough');
  assert.deepEqual(connection.closedWith, [4000, 'enough']);
  assert.deepEqual(types(connection.take()), ['BET', 'BYE']);
  assert.deepEqual(closes, [{code: 4000, reason: 'enough', reconnects: false}]);
  const error = await outcome(answer);
  assert.equal(error.code, 'closed');
  assert.equal(error.details, 'The socket was closed with 4000.');
  assert.throws(() => socket.send('CHAT'), {code: 'closed', details: 'The socket is closed. Call its open() first.'});
  assert.equal(await codeOf(ask('BET')), 'closed');
  connection.end(4000);
  for (const type of ['offline', 'online', 'visibilitychange']) happens(type);
  socket.close();
  assert.equal(clock.timers.size, 0);
  assert.equal(closes.length, 1);
  socket.open();
  socket.open();
  assert.equal(Connection.all.length, 2);
  assert.deepEqual(Connection.last.accept().take(), []);
  happens('offline');
  assert.equal(socket.state, 'offline');
});

test('close() drops what is queued', async () => {
  socket = new SocketRouter();
  socket.send('CHAT');
  const answer = ask('BET');
  socket.close();
  assert.equal(await codeOf(answer), 'closed');
  socket.open();
  assert.deepEqual(Connection.last.accept().take(), []);
});

test('codes of the page\'s own can be final', async () => {
  for (const code of [4404, 4410, 4401]) {
    const connection = connect({final: [4404, 4410]}), closes = details('close');
    const answer = ask('BET');
    connection.end(code, 'no such lot');
    assert.equal(socket.state, 'closed');
    assert.deepEqual(closes, [{code, reason: 'no such lot', reconnects: false}]);
    assert.equal(await codeOf(answer), 'closed');
    socket.close();
  }
  connect({final: [4404]}).end(4405);
  assert.equal(socket.state, 'waiting');
});

test('a page may see for itself which code is final', () => {
  const connection = connect();
  socket.addEventListener('close', event => { if (event.detail.code === 4000) socket.close(); });
  connection.end(4000);
  clock.advance(10 ** 6);
  assert.equal(socket.state, 'closed');
  assert.equal(Connection.all.length, 1);
});

test('a badge hears of every state', () => {
  socket = new SocketRouter();
  assert.equal(socket.state, 'connecting');
  const states = details('state'), opens = details('open');
  Connection.last.accept().end(1012);
  reconnected();
  socket.close();
  assert.deepEqual(states, [
    {state: 'open', previous: 'connecting', delay: undefined},
    {state: 'waiting', previous: 'open', delay: 500},
    {state: 'connecting', previous: 'waiting', delay: undefined},
    {state: 'open', previous: 'connecting', delay: undefined},
    {state: 'closed', previous: 'open', delay: undefined},
  ]);
  assert.equal(opens.length, 2);
  assert.throws(() => { socket.state = 'open'; }, TypeError);
});

test('RECONNECT is an event, also when it answers a request', async () => {
  const connection = connect(), reconnects = details('reconnect');
  socket.default(() => assert.fail('It was routed.'));
  const answer = ask('BET');
  const content = {type: 'RECONNECT', details: 'Your session is gone.', ref: connection.take()[0].ref};
  connection.push(content);
  assert.deepEqual(reconnects, [content]);
  connection.end(4401);
  assert.equal(await codeOf(answer), 'closed');
});

test('an ERROR that answers no request is an event, and told to the console unless that is prevented', () => {
  const connection = connect(), problems = details('error');
  const content = {type: 'ERROR', code: 'unknown_type', details: 'No route for the type CHATT.'};
  connection.push(content);
  assert.deepEqual(warnings, ['The server says unknown_type: No route for the type CHATT.']);
  socket.addEventListener('error', event => event.preventDefault());
  connection.push(content);
  assert.deepEqual(problems, [content, content]);
  assert.equal(warnings.length, 1);
});

test('another WebSocket can be used', () => {
  class Other extends Connection {}
  connect({WebSocket: Other});
  assert.ok(Connection.last instanceof Other);
});

test('the types name every member and every option', () => {
  const types = read('sockets.d.ts');
  const names = (head, pattern) => {
    const body = types.slice(types.indexOf(head)).split('\n}\n')[0];
    return [...new Set([...body.matchAll(pattern)].map(match => match[1]))].sort();
  };
  const members = names('class SocketRouter', /^  (?:readonly )?(\w+)[<(:]/gm);
  assert.deepEqual(members.filter(name => !name.endsWith('EventListener')),
                   Object.getOwnPropertyNames(SocketRouter.prototype).sort());
  const options = /There are (.+)\./;
  assert.throws(() => new SocketRouter('/', {x: 1}), ({message}) => {
    assert.deepEqual(names('interface SocketOptions', /^  (\w+)\?:/gm), options.exec(message)[1].split(', ').sort());
    return true;
  });
});

// Streams.

const sent = (offset, stream = 'tea', epoch = 'k3f9') => ({type: 'SAID', n: offset, kept: {stream, epoch, offset}});
const told = (offset, fields = {}) => ({type: 'FOLLOWING', stream: 'tea', epoch: 'k3f9', offset, ...fields});
const sentUpTo = (from, to, ...rest) => Array.from({length: to - from}, (_, n) => sent(from + n + 1, ...rest));
const answerTo = (frame, parts) => ({type: 'RESUMED', ref: frame.ref, streams: parts});
const part = (offset, messages, fields = {}) => (
  {epoch: 'k3f9', offset, lost: false, more: false, messages, ...fields});
const resumes = connection => connection.take().filter(frame => (frame.payload ?? frame).type === 'RESUME');

// What the page is handed of streams.
function hear(pattern = 'SAID') {
  const seen = [];
  socket.route(pattern, content => seen.push(content.n));
  return seen;
}

// A document with these positions in it.
function print(...elements) {
  const found = elements.map(positions => ({textContent: JSON.stringify(positions)}));
  document.querySelectorAll = selector => selector === 'script[data-stream-positions]' ? found : [];
}

test('a page that comes back resumes where it was, and only if it is behind', () => {
  const connection = connect(), seen = hear();
  connection.push(told(3));
  for (const n of [4, 5]) connection.push(sent(n));
  assert.deepEqual([seen, resumes(connection)], [[4, 5], []]);
  connection.end();
  let next = reconnected();
  next.push(told(5));
  assert.deepEqual(resumes(next), []);
  next.end();
  next = reconnected();
  next.push(told(8));
  const [resume] = resumes(next);
  assert.deepEqual(resume, {type: 'RESUME', ref: resume.ref, streams: {tea: {epoch: 'k3f9', offset: 5}}});
  // What is pushed meanwhile waits for its turn.
  next.push(sent(9));
  assert.deepEqual(seen, [4, 5]);
  next.push(answerTo(resume, {tea: part(8, sentUpTo(5, 8))}));
  assert.deepEqual(seen, [4, 5, 6, 7, 8, 9]);
  clock.advance(20000);
  assert.deepEqual([resumes(next), warnings], [[], []]);
});

test('each message of a stream is handed over once, and in order', () => {
  const connection = connect(), seen = hear();
  connection.push(told(0, {epoch: ''}));
  for (const n of [1, 1, 3, 2, 2, 5, 4, 3, 6]) connection.push(sent(n));
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6]);
  clock.advance(10000);
  assert.deepEqual(resumes(connection), []);
});

test('messages of streams go to routes, listeners and default as others do', () => {
  const connection = connect(), seen = [];
  socket.route('SAID', (content, self) => seen.push(['route', content, self === socket]));
  socket.on(/SA.+/, content => seen.push(['on', content.n])).default(content => seen.push(['default', content.type]));
  connection.push(told(0));
  connection.push(sent(1));
  connection.push({...sent(2), type: 'ERROR'});
  assert.deepEqual(seen, [['route', sent(1), true], ['on', 1], ['default', 'ERROR']]);
});

test('a function that raises has had its message', () => {
  const connection = connect(), seen = [];
  socket.route('SAID', ({n}) => { seen.push(n); throw new Error('a bug'); });
  connection.push(told(0));
  for (const n of [1, 3, 2, 1]) connection.push(sent(n));
  assert.deepEqual([seen, reported], [[1, 2, 3], ['a bug', 'a bug', 'a bug']]);
});

test('a gap is asked for after 200 ms and a random bit, unless it is filled by then', () => {
  const connection = connect(), seen = hear();
  connection.push(told(0));
  connection.push(sent(2));
  clock.advance(299);
  connection.push(sent(1));
  clock.advance(1000);
  assert.deepEqual([seen, resumes(connection)], [[1, 2], []]);
  connection.push(sent(5));
  clock.advance(299);
  assert.deepEqual(resumes(connection), []);
  clock.advance(1);
  const [resume] = resumes(connection);
  assert.deepEqual(resume.streams, {tea: {epoch: 'k3f9', offset: 2}});
  connection.push(answerTo(resume, {tea: part(4, sentUpTo(2, 4))}));
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
});

test('it asks again, later each time, if the answer does not fill the gap', () => {
  const connection = connect(), seen = hear();
  connection.push(told(0));
  connection.push(sent(3));
  const delays = [];
  for (let n = 0; n < 10; n++) {
    const before = clock.now;
    let asked = [];
    while (!asked.length) {
      clock.advance(10);
      for (const frame of asked = connection.take()) {
        if (frame.type === 'PING') connection.push({type: 'ACK', ref: frame.ref});
      }
      asked = asked.filter(frame => frame.type === 'RESUME');
    }
    delays.push(clock.now - before);
    connection.push(answerTo(asked[0], {tea: part(0, [])}));
  }
  assert.deepEqual(delays, [300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 45000, 45000]);
  connection.push(sent(1));
  connection.push(sent(2));
  assert.deepEqual(seen, [1, 2, 3]);
  // The next gap begins anew.
  connection.push(sent(5));
  clock.advance(300);
  assert.equal(resumes(connection).length, 1);
});

test('it asks again while there is more', () => {
  const connection = connect(), seen = hear();
  connection.push(told(9, {since: {epoch: 'k3f9', offset: 0}}));
  for (const [from, to] of [[0, 4], [4, 8], [8, 9]]) {
    const [resume] = resumes(connection);
    assert.deepEqual(resume.streams.tea.offset, from);
    connection.push(answerTo(resume, {tea: part(to, sentUpTo(from, to), {more: to < 9})}));
  }
  clock.advance(10000);
  assert.deepEqual([seen.length, resumes(connection)], [9, []]);
});

test('what is lost is an event, and it goes on from the position that it was given', () => {
  print([{stream: 'tea', epoch: 'k3f9', offset: 2}]);
  const connection = connect(), seen = hear(), lost = details('lost');
  connection.push(told(40));
  const [resume] = resumes(connection);
  connection.push(sent(42));
  connection.push(answerTo(resume, {tea: part(41, [], {lost: true})}));
  assert.deepEqual(lost, [{stream: 'tea', epoch: 'k3f9', offset: 41}]);
  assert.deepEqual(seen, [42]);
  clock.advance(10000);
  assert.deepEqual(resumes(connection), []);
});

test('another epoch is asked for with the position of the old one, and lost', () => {
  const connection = connect(), seen = hear(), lost = details('lost');
  connection.push(told(7));
  connection.push(sent(3, 'tea', 'new'));
  clock.advance(300);
  const [resume] = resumes(connection);
  assert.deepEqual(resume.streams, {tea: {epoch: 'k3f9', offset: 7}});
  connection.push(answerTo(resume, {tea: part(2, [], {lost: true, epoch: 'new'})}));
  assert.deepEqual([seen, lost.length], [[3], 1]);
  // One of the old epoch that comes late changes nothing.
  connection.push(sent(8));
  clock.advance(300);
  connection.push(answerTo(resumes(connection)[0], {tea: part(3, [], {epoch: 'new'})}));
  connection.push(sent(4, 'tea', 'new'));
  clock.advance(10000);
  assert.deepEqual([seen, lost.length, resumes(connection)], [[3, 4], 1, []]);
});

test('a database that was restored is noticed, a frame that was overtaken is not', () => {
  const connection = connect(), lost = details('lost');
  connection.push(told(7));
  connection.push(sent(8));
  connection.push(told(7));
  assert.deepEqual(resumes(connection), []);
  clock.advance(1001);
  connection.push(told(5));
  const [resume] = resumes(connection);
  assert.deepEqual(resume.streams.tea.offset, 8);
  connection.push(answerTo(resume, {tea: part(5, [], {lost: true})}));
  assert.equal(lost[0].offset, 5);
  clock.advance(10000);
  assert.deepEqual(resumes(connection), []);
});

test('a stream without messages begins with the first epoch that is seen, and nothing is lost', () => {
  print([{stream: 'tea', epoch: '', offset: 0}]);
  let connection = connect(), seen = hear();
  connection.push(sent(1));
  assert.deepEqual(seen, [1]);
  socket.close();
  connection = connect();
  seen = hear();
  connection.push(told(2));
  assert.deepEqual(resumes(connection)[0].streams, {tea: {epoch: 'k3f9', offset: 0}});
});

test('what is pushed before FOLLOWING waits until that has said where to begin', () => {
  let connection = connect(), seen = hear();
  for (const n of [6, 7]) connection.push(sent(n));
  clock.advance(3000);
  assert.deepEqual([seen, resumes(connection)], [[], []]);
  connection.push(told(6, {since: {epoch: 'k3f9', offset: 4}}));
  const [resume] = resumes(connection);
  assert.equal(resume.streams.tea.offset, 4);
  connection.push(answerTo(resume, {tea: part(7, sentUpTo(4, 7))}));
  assert.deepEqual(seen, [5, 6, 7]);
  for (const position of [told(7), told(0, {epoch: ''})]) {
    socket.close();
    connection = connect();
    seen = hear();
    const first = position.offset ? 6 : 1;
    for (const n of [first + 1, first]) connection.push(sent(n));
    connection.push(position);
    // They were sent to a follower, so they are its own, whatever the other says.
    assert.deepEqual([seen, resumes(connection)], [[first, first + 1], []]);
  }
});

test('what was pushed on a connection that was lost is no later than where the page begins on the next', () => {
  const seen = [];
  let connection = connect();
  socket.route('SAID', content => seen.push(content.n));
  connection.push(sent(9));
  for (const fields of [{}, {since: {epoch: 'k3f9', offset: 11}}]) {
    connection.end();
    connection = reconnected();
    connection.push(told(11, fields));
    assert.deepEqual(seen.splice(0), [9]);
    const [resume] = resumes(connection);
    connection.push(answerTo(resume, {tea: part(11, sentUpTo(9, 11))}));
    assert.deepEqual(seen.splice(0), [10, 11]);
    socket.close();
    connection = connect();
    socket.route('SAID', content => seen.push(content.n));
    connection.push(sent(9));
  }
});

test('another epoch, and an end that is before what was had on the connection before, are asked about at once', () => {
  for (const fields of [{epoch: 'new'}, {}]) {
    let connection = connect();
    const seen = hear(), lost = details('lost');
    connection.push(told(4));
    connection.push(sent(5));
    connection.end();
    connection = reconnected();
    connection.push(told(2, fields));
    assert.deepEqual(resumes(connection)[0].streams, {tea: {epoch: 'k3f9', offset: 5}});
    socket.close();
    assert.deepEqual([seen, lost], [[5], []]);
  }
});

test('a closed socket asks for nothing', () => {
  const connection = connect();
  connection.push(told(1));
  connection.push(sent(3));
  socket.close();
  clock.advance(20000);
  assert.deepEqual(resumes(connection), []);
});

test('where the page begins may be said late, and not by what only says that the stream has moved', () => {
  const connection = connect({heartbeat: Infinity}), seen = hear();
  // What came first was lost, and so was the first message.
  connection.push(sent(7));
  connection.push(told(7, {again: true}));
  clock.advance(20000);
  assert.deepEqual([seen, resumes(connection)], [[], []]);
  connection.push(told(7, {since: {epoch: 'k3f9', offset: 4}}));
  const [resume] = resumes(connection);
  assert.deepEqual(resume.streams, {tea: {epoch: 'k3f9', offset: 4}});
  connection.push(answerTo(resume, {tea: part(7, sentUpTo(4, 7))}));
  clock.advance(60000);
  assert.deepEqual([seen, resumes(connection)], [[5, 6, 7], []]);
  // Who has begun is behind.
  connection.push(told(8, {again: true}));
  assert.equal(resumes(connection)[0].streams.tea.offset, 7);
});

test('where nobody says in half a minute where the page begins, it begins with what it has heard of', () => {
  for (const first of [[sent(7)], [sent(8), sent(7)], [told(8, {again: true}), sent(7)]]) {
    const connection = connect({heartbeat: Infinity}), seen = hear();
    first.forEach(frame => connection.push(frame));
    clock.advance(29000);
    assert.deepEqual(seen, []);
    clock.advance(1000);
    for (const frame of resumes(connection)) connection.push(answerTo(frame, {tea: part(8, [sent(8)])}));
    assert.deepEqual(seen, first.length > 1 ? [7, 8] : [7]);
    socket.close();
  }
});

test('who has only heard of a stream waits anew on the next connection to be told where the page begins', () => {
  let connection = connect({heartbeat: Infinity});
  const seen = hear();
  connection.push(told(8, {again: true}));
  clock.advance(1000);
  connection.end();
  connection = reconnected();
  clock.advance(40000);
  connection.push(told(9, {since: {epoch: 'k3f9', offset: 8}}));
  for (const frame of resumes(connection)) connection.push(answerTo(frame, {tea: part(9, [sent(9)])}));
  assert.deepEqual(seen, [9]);
});

test('who has a position of its own does not begin elsewhere', () => {
  print([{stream: 'tea', epoch: 'k3f9', offset: 5}]);
  const connection = connect();
  connection.push(told(5, {since: {epoch: 'k3f9', offset: 1}}));
  clock.advance(10000);
  assert.deepEqual(resumes(connection), []);
});

test('a FOLLOWING that is lost is not waited for, once there is a position', () => {
  print([{stream: 'tea', epoch: 'k3f9', offset: 5}]);
  const connection = connect(), seen = hear();
  connection.push(told(0, {stream: 'milk'}));
  clock.advance(5099);
  assert.deepEqual(resumes(connection), []);
  clock.advance(1);
  const [resume] = resumes(connection);
  assert.deepEqual(resume.streams, {tea: {epoch: 'k3f9', offset: 5}});
  connection.push(answerTo(resume, {tea: part(6, sentUpTo(5, 6))}));
  assert.deepEqual(seen, [6]);
  connection.end();
  const next = reconnected();
  next.push(told(6));
  clock.advance(5100);
  const [again] = resumes(next);
  assert.deepEqual(Object.keys(again.streams), ['milk']);
  // It is not followed any more.
  next.push(answerTo(again, {}));
  clock.advance(10000);
  assert.deepEqual(resumes(next), []);
});

test('streams that are behind at once are asked for together', () => {
  print(Array.from({length: 150}, (_, n) => ({stream: `s${n}`, epoch: 'k3f9', offset: 1})));
  const connection = connect();
  for (let n = 0; n < 150; n++) connection.push(told(2, {stream: `s${n}`}));
  const counts = [];
  for (let frame; frame = resumes(connection)[0];) {
    const names = Object.keys(frame.streams);
    counts.push(names.length);
    connection.push(answerTo(frame, Object.fromEntries(names.map(name => [name, part(2, sentUpTo(1, 2, name))]))));
  }
  assert.deepEqual(counts, [1, 100, 49]);
});

test('one that got nothing because another took all is asked for again at once', () => {
  print([{stream: 'tea', epoch: 'k3f9', offset: 0}, {stream: 'milk', epoch: 'k3f9', offset: 0}]);
  const connection = connect();
  clock.advance(5100);
  const [resume] = resumes(connection);
  assert.deepEqual(Object.keys(resume.streams), ['tea', 'milk']);
  connection.push(answerTo(resume, {tea: part(1, sentUpTo(0, 1)), milk: part(0, [], {more: true})}));
  assert.deepEqual(resumes(connection)[0].streams, {milk: {epoch: 'k3f9', offset: 0}});
});

test('a lost connection takes its RESUME with it, and the next one asks anew', () => {
  const connection = connect(), seen = hear();
  connection.push(told(2));
  connection.push(told(4));
  const [old] = resumes(connection);
  connection.end();
  const next = reconnected();
  clock.advance(100);
  assert.deepEqual(resumes(next), []);
  next.push(told(5));
  const [resume] = resumes(next);
  assert.equal(resume.resent, undefined);
  next.push(answerTo(old, {tea: part(4, sentUpTo(2, 4))}));
  assert.deepEqual(seen, []);
  next.push(answerTo(resume, {tea: part(5, sentUpTo(2, 5))}));
  assert.deepEqual([seen, warnings], [[3, 4, 5], []]);
});

test('a RESUME without an answer, or that is too much at the moment, is tried again; one that is refused is not', () => {
  const connection = connect({heartbeat: Infinity});
  connection.push(told(2));
  connection.push(told(3));
  assert.equal(resumes(connection).length, 1);
  clock.advance(10300);
  const [second] = resumes(connection);
  connection.push({type: 'ERROR', code: 'rate_limited', details: 'Too many frames.', ref: second.ref});
  clock.advance(600);
  const [third] = resumes(connection);
  connection.push({type: 'ERROR', code: 'not_allowed', details: 'Log in.', ref: third.ref});
  clock.advance(100000);
  assert.deepEqual([resumes(connection), warnings], [[], []]);
  connection.push(sent(5));
  clock.advance(300);
  assert.equal(resumes(connection).length, 1);
});

test('through a demultiplexer, streams are resumed in their envelope', () => {
  print([{stream: 'tea', epoch: 'k3f9', offset: 1}]);
  const connection = connect(), seen = [], lost = details('lost');
  socket.default(content => seen.push(content));
  const inChat = payload => ({stream: 'chat', payload});
  const inBoard = payload => ({stream: 'all', payload: {stream: 'board', payload}});
  connection.push(inChat(told(3)));
  connection.push(inBoard(told(1)));
  connection.push(inBoard(sent(2)));
  assert.deepEqual(seen.splice(0), [inBoard(sent(2))]);
  const [resume] = resumes(connection);
  assert.deepEqual([resume.stream, resume.payload.streams], ['chat', {tea: {epoch: 'k3f9', offset: 1}}]);
  connection.push(inChat(answerTo(resume.payload, {tea: part(3, sentUpTo(1, 3))})));
  assert.deepEqual(seen.splice(0), [inChat(sent(2)), inChat(sent(3))]);
  connection.push(inBoard(sent(4)));
  clock.advance(300);
  const frames = connection.take();
  assert.deepEqual([frames.length, frames[0].payload.stream, frames[0].payload.payload.type], [1, 'board', 'RESUME']);
  connection.push(inBoard(answerTo(frames[0].payload.payload, {tea: part(3, [], {lost: true})})));
  assert.deepEqual(lost, [{stream: 'tea', epoch: 'k3f9', offset: 3, within: ['all', 'board']}]);
  assert.deepEqual(seen, [inBoard(sent(4))]);
  clock.advance(10000);
  assert.deepEqual(resumes(connection), []);
});

test('a message of a stream may look like an envelope, or like a frame of the protocol', async () => {
  // It was handed over when it was pushed, as what it contains, and again when it was asked for.
  const shapes = [{stream: 'a', payload: {type: 'X'}}, {stream: 'a', payload: {stream: 'b', payload: {}}},
                  {stream: 'a', payload: {}, ref: 'r'}, {type: 'PING'}, {type: 'RECONNECT'}, {type: 'ERROR', code: 'x'}];
  const contents = shapes.map((shape, n) => ({...shape, kept: {stream: 'tea', epoch: 'k3f9', offset: n + 1}}));
  for (const within of [[], ['chat']]) {
    const connection = connect(), seen = [], reconnects = details('reconnect');
    const packed = payload => within.reduceRight((inner, stream) => ({stream, payload: inner}), payload);
    socket.default(content => seen.push(content));
    connection.push(packed(told(0)));
    for (const content of contents) connection.push(packed(content));
    assert.deepEqual(seen.splice(0), contents.map(packed));
    connection.push(packed(told(2 * shapes.length)));
    const [resume] = resumes(connection);
    const others = contents.map(({kept, ...rest}) => ({...rest, kept: {...kept, offset: kept.offset + shapes.length}}));
    const asked = within.length ? resume.payload : resume;
    connection.push(packed(answerTo(asked, {tea: part(2 * shapes.length, others)})));
    assert.deepEqual(seen, others.map(packed));
    clock.advance(10000);
    assert.deepEqual([connection.take(), reconnects], [[], []]);
    socket.close();
  }
});

test('an answer may look like an envelope', async () => {
  const connection = connect();
  const answer = socket.request('WHERE');
  const [{ref}] = connection.take();
  connection.push({stream: 'a', payload: {n: 1}, ref});
  assert.deepEqual((await answer).payload, {n: 1});
});

test('what is held back is bounded, and asked for beyond that', () => {
  for (const text of ['', 'x'.repeat(2 ** 20)]) {
    const connection = connect(), seen = hear();
    connection.push(told(0));
    for (let n = 2; n <= 1500; n++) connection.push({...sent(n), text});
    clock.advance(300);
    const [resume] = resumes(connection);
    connection.push(answerTo(resume, {tea: part(1, sentUpTo(0, 1))}));
    assert.equal(seen.length, text ? 4 : 1001);
    clock.advance(300);
    const [again] = resumes(connection);
    assert.deepEqual(again.streams.tea.offset, seen.length);
    connection.push(answerTo(again, {tea: part(1500, sentUpTo(seen.length, 1500))}));
    assert.deepEqual(seen, Array.from({length: 1500}, (_, n) => n + 1));
    socket.close();
  }
});

test('a page that closes the socket gets nothing more, and all that was left when it opens it', () => {
  const connection = connect(), seen = [];
  socket.route('SAID', ({n}) => { seen.push(n); if (n === 2) socket.close(); });
  connection.push(told(0));
  for (const n of [3, 2, 1]) connection.push(sent(n));
  assert.deepEqual(seen, [1, 2]);
  socket.open();
  const next = Connection.last.accept();
  next.push(told(3));
  for (const frame of resumes(next)) next.push(answerTo(frame, {tea: part(3, sentUpTo(2, 3))}));
  assert.deepEqual(seen, [1, 2, 3]);
});

test('what looks a little like a stream is a frame like others', () => {
  const connection = connect(), seen = [];
  socket.default(content => seen.push(content));
  const frames = [{type: 'SAVED', kept: true}, {type: 'SAVED', kept: {stream: 'tea', offset: 1}},
                  {type: 'FOLLOWING', name: 'Ann'}, {type: 'A', stream: 'tea', payload: {type: 'PING'}},
                  {stream: 'tea', payload: {type: 'SAID'}}, {stream: 'tea', payload: null}, {stream: 'tea'}];
  for (const frame of frames) connection.push(frame);
  assert.deepEqual([seen, reported], [frames, []]);
});

test('of two positions of a stream on a page, the earlier counts, and rubbish is reported', () => {
  const at = offset => ({stream: 'tea', epoch: 'k3f9', offset});
  print([at(3), at(2)], 5, [at(4)]);
  const connection = connect();
  assert.equal(reported.length, 1);
  connection.push(told(4));
  assert.equal(resumes(connection)[0].streams.tea.offset, 2);
});

test('names of streams are any', () => {
  for (const name of ['__proto__', 'constructor', '', '["a"]', 'tea\0"\u2028']) {
    const connection = connect(), seen = hear();
    connection.push(told(0, {stream: name}));
    connection.push(sent(2, name));
    clock.advance(300);
    const [resume] = resumes(connection);
    assert.deepEqual(Object.entries(resume.streams), [[name, {epoch: 'k3f9', offset: 0}]]);
    const messages = JSON.stringify(sentUpTo(0, 1, name));
    connection.push(`{"type":"RESUMED","ref":"${resume.ref}","streams":{${JSON.stringify(name)}:{"epoch":"k3f9",` +
                    `"offset":1,"lost":false,"more":false,"messages":${messages}}}}`);
    assert.deepEqual(seen, [1, 2]);
    socket.close();
  }
});

test('the blocks of the how-to show what was said, draw what was lost, and begin where the page says', async () => {
  const blocks = [...readFile('docs/how-to/streams.md').matchAll(/^```(?:javascript|js)\n(.*?)^```$/gms)].map(match => match[1]);
  assert.equal(blocks.length, 2);
  print([{stream: 'tea', epoch: 'k3f9', offset: 2}]);
  const shown = [], drawn = [];
  // The last line hands out what the page has as a global.
  const run = new Function('SocketRouter', 'show', 'draw', `${blocks.join('\n')}\nreturn socket;`);
  socket = run(SocketRouter, text => shown.push(text), orders => drawn.push(orders));
  const connection = Connection.last.accept();
  const text = n => ({...sent(n), text: `m${n}`});
  connection.push(told(4));
  const [resume] = resumes(connection);
  assert.equal(resume.streams.tea.offset, 2);
  connection.push(answerTo(resume, {tea: part(4, [text(3), text(4)])}));
  connection.push(text(5));
  assert.deepEqual([shown, drawn], [['m3', 'm4', 'm5'], []]);
  connection.push(told(50));
  connection.push(answerTo(resumes(connection)[0], {tea: part(50, [], {lost: true})}));
  const [asked] = connection.take().filter(frame => frame.type === 'VALUES');
  connection.push({type: 'VALUES', orders: 7, ref: asked.ref});
  await new Promise(setImmediate);
  assert.deepEqual([shown.length, drawn], [3, [7]]);
});

test('whatever is lost, doubled and out of order on the wire, and however often it comes back, the list is complete', () => {
  let seed = 1;
  const chance = () => (seed = seed * 48271 % 2147483647) / 2147483647;
  for (let round = 0; round < 100; round++) {
    const wire = [], numbers = Array.from({length: 300}, (_, n) => n + 1);
    const count = 20 + Math.floor(chance() * 200), limit = 1 + Math.floor(chance() * 40);
    let connection = connect({heartbeat: Infinity}), head = 0;
    const seen = hear();
    const open = () => {
      wire.length = 0;
      if (chance() < 0.8) wire.push(told(head, head ? {} : {epoch: ''}));
    };
    const serve = () => {
      for (const frame of resumes(connection)) {
        if (chance() < 0.1) continue;
        const from = frame.streams.tea.offset, to = Math.min(head, from + limit);
        wire.push(answerTo(frame, {tea: part(to, sentUpTo(from, to), {more: to < head})}));
      }
    };
    connection.push(told(0, {epoch: ''}));
    for (let quiet = 0; quiet < 600; clock.advance(chance() * 300)) {
      if (head < count) {
        wire.push(...Array(chance() < 0.2 ? 0 : chance() < 0.2 ? 2 : 1).fill(sent(++head)));
      } else if (quiet++ % 100 === 50) {
        wire.push(told(head));
      }
      if (head < count && chance() < 0.03) {
        connection.end();
        connection = reconnected();
        open();
      }
      serve();
      while (wire.length && chance() < 0.7) {
        connection.push(wire.splice(Math.floor(chance() * Math.min(3, wire.length)), 1)[0]);
      }
    }
    assert.deepEqual(seen, numbers.slice(0, count), `round ${round}`);
    socket.close();
  }
});
