"""What an ``async def`` calls on rows: the database and the channel layer keep nobody waiting but itself."""

from typing import Any, Dict, Optional

from .. import engine, messages


class Speaking:
    """Mixed into what has ``send_json``, ``send`` and ``close``, which return how many connections that reached."""

    async def asend_json(self, content: Dict[str, Any]) -> int:
        """``send_json`` for an ``async def``."""
        return await engine.current().wait_for(self.send_json, content)  # type: ignore[attr-defined]

    async def asend_action(self, type: str, **fields: Any) -> int:
        """``send_action`` for an ``async def``."""
        return await self.asend_json(messages.action(type, fields))

    async def asend(self, text: Optional[str] = None, bytes: Optional[bytes] = None) -> int:
        """``send`` for an ``async def``."""
        return await engine.current().wait_for(self.send, text, bytes)  # type: ignore[attr-defined]

    async def aclose(self, code: int = messages.CLOSE_NORMAL) -> int:
        """``close`` for an ``async def``."""
        return await engine.current().wait_for(self.close, code)  # type: ignore[attr-defined]


class SpeakingToMany(Speaking):
    """Mixed into a queryset of connections."""

    async def arevoke(self, details: str = 'You may not use this connection any more.') -> int:
        """``revoke`` for an ``async def``."""
        return await engine.current().wait_for(self.revoke, details)  # type: ignore[attr-defined]


class SpeakingToOne(Speaking):
    """Mixed into the row of a connection."""

    async def ajoin(self, room: str) -> bool:
        """``join`` for an ``async def``."""
        return await engine.current().wait_for(self.join, room)  # type: ignore[attr-defined]

    async def aleave(self, room: str) -> bool:
        """``leave`` for an ``async def``."""
        return await engine.current().wait_for(self.leave, room)  # type: ignore[attr-defined]
