'use strict';

// The badge that says how the connection is, and the button for when it does not come back by itself.
function showState(socket) {
  const badge = document.getElementById('badge'), again = document.getElementById('again');
  const show = () => {
    badge.dataset.state = badge.textContent = socket.state;
    again.hidden = socket.state !== 'closed';
  };
  socket.addEventListener('state', show);
  again.addEventListener('click', () => socket.open());
  show();
}
