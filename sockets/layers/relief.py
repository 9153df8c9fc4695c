"""What is done for others while a thread that has taken several frames handles one that takes longer than they did."""

import logging
import threading
import time
import weakref

logger = logging.getLogger('sockets')

# Seconds that frames wait for the one before them, and the answers to those before it for it.
PATIENCE = 0.01


class Relief:
    """Gives back the frames of ``claims`` that wait for a slow one, and sends what its thread still holds of answers."""

    def __init__(self, claims, ring):
        self.claims = claims
        self.ring = ring
        self._hands = weakref.WeakSet()
        self._is_needed = threading.Event()
        self._lock = threading.Lock()
        self._runner = None

    def watch(self, hand):
        """Look after ``hand``, which has taken several frames."""
        if hand not in self._hands:
            with self._lock:
                self._hands.add(hand)
        if not self._is_needed.is_set():
            self._is_needed.set()
        # A process that was forked has no threads of its parent.
        if self._runner is None or not self._runner.is_alive():
            with self._lock:
                if self._runner is None or not self._runner.is_alive():
                    self._runner = threading.Thread(
                        target=_run, args=(weakref.ref(self), self._is_needed), daemon=True, name='sockets-relief'
                    )
                    self._runner.start()

    def relieve(self):
        """Do it for each thread that has been at it for too long."""
        self._is_needed.clear()
        with self._lock:
            hands = [hand for hand in self._hands if hand.has_several]
        if not hands:
            return
        self._is_needed.set()
        since = time.monotonic() - PATIENCE
        for hand in hands:
            if hand.taken and hand.since < since:
                self.claims.give_back(hand)
        self.ring.send_held(since)
        for hand in hands:
            hand.rest(since)


def _run(relief, is_needed):
    while True:
        is_needed.wait(1)
        time.sleep(PATIENCE / 2)
        alive = relief()
        if alive is None:
            return
        try:
            alive.relieve()
        except Exception:
            logger.exception('Frames that wait for a slow one could not be given back')
        # A local name keeps its object alive.
        del alive
