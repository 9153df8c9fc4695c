"""Pings, and the time-out of a client that answers none."""


class Heartbeats:
    """How a ``SocketProtocol`` finds out whether its client is there."""

    # A full transport kept us from reading, and the pong may be in what waits: it is read for once.
    is_awaiting_pong = False

    def check_ping(self):
        # daphne would send a second ping and forget the first, whose time-out then ends the connection though it is
        # answered.
        if self.state != self.STATE_OPEN or self.autoPingTimeoutCall is None:
            super().check_ping()

    def note_sign_of_life(self):
        """Stop the time-out of the ping: the client is there."""
        if self.autoPingTimeoutCall is not None:
            self.autoPingTimeoutCall.cancel()
        self.autoPingTimeoutCall = self.autoPingPending = None
        self.is_awaiting_pong = False

    def onAutoPingTimeout(self):
        if self.backlog is None or self.is_awaiting_pong or self.state != self.STATE_OPEN:
            return super().onAutoPingTimeout()
        # We have not read because the client reads slowly. Its pong may be in what waits.
        self.is_awaiting_pong = True
        self.autoPingTimeoutCall = self.factory._batched_timer.call_later(1, self.onAutoPingTimeout)
        self.handle_frames_later()
