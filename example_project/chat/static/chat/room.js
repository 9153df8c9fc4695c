'use strict';

const $ = id => document.getElementById(id);
const log = $('log'), who = $('who'), input = $('text'), problem = $('problem'), typing = $('typing');
const {me, moderator} = document.querySelector('[data-me]').dataset;

// At the path of the page. What is sent while the connection is away goes out when it is back; what was said meanwhile
// comes then: each message of the room's stream once, and in order.
const socket = new SocketRouter();
let kicked = false;
// Those that are shown, by id, and lines of ours whose messages have been taken and have yet to come.
const shown = new Set(), taken = new Map();

socket.route('SAID', show);
socket.route('NOTE', content => note(content.text));
socket.route('CONNECTED', askWho);
socket.route('JOINED', content => note(content.name + ' joined'));
socket.route('LEFT', content => {
  note(content.by ? `${content.by} asked ${content.name} to leave` : content.name + ' left');
  askWho();
});
socket.route('ANNOUNCED', content => append(element('p', content.text, 'announced')));
socket.route('TYPING', content => showTyping(content.name));
socket.route('KICKED', () => { kicked = true; });
socket.default(() => {});

socket.addEventListener('open', () => {
  problem.textContent = '';
  kicked = false;
  askWho();
});
socket.addEventListener('lost', () => {
  note('Some messages were too old to be kept.');
  taken.forEach(line => line.remove());
});
socket.addEventListener('close', event => {
  if (kicked) problem.textContent = 'You were asked to leave. Try again in a few minutes.';
  // The session is gone: the page knows what to do about it, ask for a name for example.
  else if (event.detail.code === 4401) location.reload();
});
socket.addEventListener('error', event => { problem.textContent = event.detail.details; });

// The promise is kept by the frame that answers ours, and broken by an ERROR. A request that a restart of the server
// has left without an answer is sent again, with the ref that it had; the server knows it by that.
$('say').addEventListener('submit', async event => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  problem.textContent = input.value = '';
  const pending = append(element('p', text, 'said mine pending'), null);
  try {
    const {id} = await (text.startsWith('/') ? socket.request(text) : socket.request('SAY', {text}, {timeout: 60000}));
    if (id === undefined || shown.has(id)) pending.remove();
    else taken.set(id, pending);
  } catch (error) {
    pending.remove();
    problem.textContent = error.message;
    input.value = input.value || text;
  }
});

// Ask anew instead of counting joins and leaves: the rows of the server are what is true.
let asked;
function askWho() {
  const current = asked = socket.request('WHO');
  current.then(content => {
    if (current !== asked) return;
    who.replaceChildren(...content.people.map(person => {
      const line = element('li', person.name === me ? person.name + ' (you)' : person.name);
      if (moderator !== undefined && person.name !== me) line.append(' ', kickButton(person));
      return line;
    }));
  }, () => {});
}

function kickButton(person) {
  const button = element('button', 'Kick', 'quiet small');
  button.setAttribute('aria-label', 'Kick ' + person.name);
  button.addEventListener('click', () => socket.request('KICK', {id: person.id}).catch(error => {
    problem.textContent = error.message;
  }));
  return button;
}

let lastTyped = 0;
input.addEventListener('input', () => {
  if (socket.state !== 'open' || Date.now() - lastTyped < 2000) return;
  lastTyped = Date.now();
  socket.send('TYPING');
});

const typists = new Map();  // name -> what will make us forget it
function showTyping(name) {
  clearTimeout(typists.get(name));
  typists.set(name, setTimeout(stopTyping, 4000, name));
  writeTypists();
}
function stopTyping(name) {
  clearTimeout(typists.get(name));
  if (typists.delete(name)) writeTypists();
}
function writeTypists() {
  typing.textContent = typists.size ? [...typists.keys()].join(', ') + (typists.size > 1 ? ' are' : ' is') + ' typing …' : '';
}

function show(message) {
  stopTyping(message.name);
  taken.get(message.id)?.remove();
  taken.delete(message.id);
  shown.add(message.id);
  const line = element('p', '', message.name === me ? 'said mine' : 'said');
  line.append(element('b', message.name), ' ', element('span', message.text), ' ',
              element('time', new Date(message.at).toLocaleTimeString([], {timeStyle: 'short'})));
  append(line);
}

function note(text) {
  append(element('p', text, 'note'));
}

function append(line, before = log.querySelector('.pending')) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.insertBefore(line, before);
  while (log.children.length > 500) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
  return line;
}

function element(tag, text, className = '') {
  const node = document.createElement(tag);
  node.textContent = text;  // never innerHTML: others wrote this
  node.className = className;
  return node;
}

showState(socket);
