"""What an ``async def`` calls on its socket: it keeps nobody waiting but itself."""

from typing import Any, Dict, List, Optional

from .. import engine, messages
from ..fanout import message
from . import replies


class AsyncMethods:
    """Mixed into the handler class, whose methods are called the same without the ``a``."""

    async def aaccept(self) -> None:
        """``accept`` for an ``async def``."""
        await engine.current().wait_for(self.accept)  # type: ignore[attr-defined]

    async def asend_json(self, content: Dict[str, Any]) -> None:
        """``send_json`` for an ``async def``. On Channels 4, it waits until the server has taken the frame."""
        await self._connection.asend(replies.message_of(self, content))  # type: ignore[attr-defined]

    async def asend_action(self, type: str, **fields: Any) -> None:
        """``send_action`` for an ``async def``."""
        await self.asend_json(messages.action(type, fields))

    async def asend(self, text: Optional[str] = None, bytes: Optional[bytes] = None) -> None:
        """``send`` for an ``async def``."""
        await self._connection.asend(message(text, bytes))  # type: ignore[attr-defined]

    async def aclose(self, code: int = messages.CLOSE_NORMAL) -> None:
        """``close`` for an ``async def``."""
        await self._connection.asend({'close': messages.close_code(code)})  # type: ignore[attr-defined]

    async def arooms(self) -> List[str]:
        """Return ``rooms``, in an ``async def``."""
        return await engine.current().wait_for(lambda: self.rooms)  # type: ignore[attr-defined]

    async def ajoin(self, room: str) -> None:
        """``join`` for an ``async def``."""
        await engine.current().wait_for(self.join, room)  # type: ignore[attr-defined]

    async def aleave(self, room: str) -> None:
        """``leave`` for an ``async def``."""
        await engine.current().wait_for(self.leave, room)  # type: ignore[attr-defined]
