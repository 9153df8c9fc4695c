"""Pings, and the time-out of a client that answers none."""


class Heartbeats:
    """How a ``SocketProtocol`` finds out whether its client is there."""

    # What a full transport keeps us from reading may be the answer to a ping: we are looking.
    is_looking = False

    def check_ping(self):
        # daphne would forget the one that is still to be answered, and its end would come whatever the answer.
        if self.state != self.STATE_OPEN or self.autoPingTimeoutCall is None:
            super().check_ping()

    def note_life(self):
        if self.autoPingTimeoutCall is not None:
            self.autoPingTimeoutCall.cancel()
        self.autoPingTimeoutCall = self.autoPingPending = None
        self.is_looking = False

    def onAutoPingTimeout(self):
        if self.backlog is None or self.is_looking or self.state != self.STATE_OPEN:
            return super().onAutoPingTimeout()
        # What it takes slowly has kept us from reading its answer, if there is one.
        self.is_looking = True
        self.autoPingTimeoutCall = self.factory._batched_timer.call_later(1, self.onAutoPingTimeout)
        self.go_on()
