'use strict';

const plot = document.getElementById('plot');
const total = document.querySelector('#total b'), most = document.getElementById('most');
const SECONDS = 60;

let counts = Array(SECONDS).fill(0);

const socket = new SocketRouter();
socket.route('PULSE', content => { counts = content.counts; draw(); });
socket.route('BEAT', () => { counts[SECONDS - 1]++; draw(); });
socket.default(() => {});

const bars = counts.map((count, second) => {
  const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  bar.setAttribute('x', second * 2 + 0.2);
  bar.setAttribute('width', 1.6);
  plot.append(bar);
  return bar;
});

function draw() {
  const highest = Math.max(5, ...counts);
  bars.forEach((bar, second) => {
    const height = counts[second] / highest * 40;
    bar.setAttribute('height', height);
    bar.setAttribute('y', 40 - height);
  });
  total.textContent = counts.reduce((sum, count) => sum + count);
  most.textContent = `at most ${Math.max(...counts)} a second`;
}

setInterval(() => { counts.push(0); counts.shift(); draw(); }, 1000);
draw();
showState(socket);
