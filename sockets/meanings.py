"""What exceptions of an engine's own mean to the core, beside ``exceptions.CloseConnection``."""


class Denied(Exception):
    """The connection is to be refused before anybody hears of it."""


class Special(Exception):
    """Something that only the engine understands: ``run()`` does what it asks for."""

    def __init__(self, run):
        super().__init__(run)
        self.run = run
