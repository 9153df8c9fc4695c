"""Durations, as text for people."""


def age(delta):
    """Return a ``timedelta`` in its largest unit, of which it has at least two: ``90 s``, ``23 h``."""
    seconds = max(0, int(delta.total_seconds()))
    for name, size in (('d', 86400), ('h', 3600), ('min', 60)):
        if seconds >= 2 * size:
            return f'{seconds // size} {name}'
    return f'{seconds} s'
