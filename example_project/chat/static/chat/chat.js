'use strict';

const $ = id => document.getElementById(id);
const log = $('log'), who = $('who'), badge = $('badge'), input = $('text'), problem = $('problem');
const me = document.querySelector('[data-me]').dataset.me;

// The socket lives at the path of the page.
const url = (location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + location.pathname;

let ws, lastRef = 0, failures = 0, asked;
const waiting = new Map();  // ref of a frame -> what to do with its answer

function connect() {
  show('connecting');
  ws = new WebSocket(url);
  ws.onopen = () => { show('open'); problem.textContent = ''; askWho(); };
  ws.onmessage = event => receive(JSON.parse(event.data));
  ws.onclose = event => {
    show('closed');
    for (const answer of [...waiting.values()]) answer({type: 'ERROR', details: 'The connection was lost.'});
    // The session is gone: the page knows what to do about it, log in again for example.
    if (event.code === 4401) return location.reload();
    // Random, so that the pages of a restarted server do not come back all at once.
    setTimeout(connect, Math.min(500 * 2 ** failures++, 30000) * (0.5 + Math.random()));
  };
}

// Send a frame with a ref. The promise is kept by the one frame that comes back with it, and broken by an ERROR.
function request(type, fields) {
  return new Promise((resolve, reject) => {
    if (ws.readyState !== WebSocket.OPEN) return reject(new Error('Not connected. Try again in a moment.'));
    const ref = ++lastRef;
    const answer = content => {
      clearTimeout(timer);
      waiting.delete(ref);
      content.type === 'ERROR' ? reject(new Error(content.details)) : resolve(content);
    };
    const timer = setTimeout(answer, 10000, {type: 'ERROR', details: 'The server did not answer.'});
    waiting.set(ref, answer);
    ws.send(JSON.stringify({type, ref, ...fields}));
  });
}

function receive(content) {
  failures = 0;
  if (waiting.has(content.ref)) return waiting.get(content.ref)(content);
  switch (content.type) {
    case 'SAID': return write(content.name === me ? 'said mine' : 'said', content.text, content.name, content.at);
    case 'JOINED': askWho(); return write('note', content.name + ' joined');
    case 'LEFT': askWho(); return write('note', content.name + ' left');
    case 'NOTE': return write('note', content.text);
    case 'ANNOUNCED': return write('announced', content.text);
    case 'PING': return ws.send('{"type": "PING"}');
    case 'RECONNECT':
    case 'ERROR': problem.textContent = content.details;
  }
}

// Ask anew instead of counting joins and leaves: with several workers they may arrive in any order.
function askWho() {
  const current = asked = request('WHO');
  current.then(content => {
    if (current !== asked) return;
    who.replaceChildren(...content.people.map(name => element('li', name === me ? name + ' (you)' : name)));
  }, () => {});
}

function element(tag, text, className = '') {
  const node = document.createElement(tag);
  node.textContent = text;  // never innerHTML: others wrote this
  node.className = className;
  return node;
}

function write(kind, text, name, at) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = element('li', '', kind);
  if (name) line.append(element('b', name), ' ');
  line.append(element('span', text));
  if (at) line.append(' ', element('time', new Date(at).toLocaleTimeString([], {timeStyle: 'short'})));
  log.append(line);
  while (log.children.length > 500) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function show(state) {
  badge.dataset.state = badge.textContent = state;
}

$('say').addEventListener('submit', event => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  problem.textContent = input.value = '';
  const sent = text.startsWith('/') ? request(text) : request('SAY', {text});
  sent.catch(error => {
    problem.textContent = error.message;
    input.value = input.value || text;
  });
});

// Says that this page is alive, and finds out about those who went without a word.
setInterval(() => {
  if (ws.readyState !== WebSocket.OPEN) return;
  ws.send('{"type": "PING"}');
  askWho();
}, 20000);

// A browser may keep a page that was left, for its back button. Coming back reopens the socket, like any other loss.
addEventListener('pagehide', () => ws.close());

connect();
