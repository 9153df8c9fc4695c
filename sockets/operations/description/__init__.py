"""What a project's sockets answer, read off their handlers: as text, as AsyncAPI and as TypeScript."""

from .asyncapi import as_asyncapi
from .endpoints import Endpoint, address, endpoints
from .text import as_text
from .typescript import as_typescript, typescript

__all__ = ['Endpoint', 'address', 'as_asyncapi', 'as_text', 'as_typescript', 'endpoints', 'typescript']
