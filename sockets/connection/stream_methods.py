"""What a function does with streams on its socket. The models are imported when it does."""

from typing import Any, Dict, Optional

from .. import engine


class StreamMethods:
    """Mixed into the handler class."""

    def follow(self, name: str, since: Optional[Dict[str, Any]] = None, last: Optional[int] = None) -> None:
        """Have this connection get the messages of the stream ``name``, and the client what it has missed of it.

        A client that has had none of it yet begins with what is sent from now on; with ``since``, a position, with what
        came after that; with ``last``, with so many that were sent last. ``RuntimeError`` before the connection is
        accepted. Who may follow is for you to ask before.
        """
        from ..streams import following

        following.follow(self, name, since, last)

    def unfollow(self, name: str) -> None:
        """Get nothing more of the stream ``name``. That happens by itself when the connection ends."""
        from ..streams import following

        following.unfollow(self, name)

    async def afollow(self, name: str, since: Optional[Dict[str, Any]] = None, last: Optional[int] = None) -> None:
        """``follow`` for an ``async def``."""
        await engine.current().wait_for(self.follow, name, since, last)

    async def aunfollow(self, name: str) -> None:
        """``unfollow`` for an ``async def``."""
        await engine.current().wait_for(self.unfollow, name)

    def on_resume(self, content: Dict[str, Any]) -> Dict[str, Any]:
        """Answer a client that has come back, and asks for what it has missed."""
        from ..streams import replays

        return replays.resume(self, content)
