"""How functions run: coroutines, the state of a thread, the time that they may take."""
