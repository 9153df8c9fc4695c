"""Channels 4: ASGI, with daphne, uvicorn or any other server of it."""
