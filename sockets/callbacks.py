"""What models call in modules that import models. These set the functions here when the apps are loaded."""


def end(rows, details, code):
    """Close the connections of ``rows``, which have been removed, with ``code``, telling them ``details``; run what is
    noted to run when they end. A ``code`` of ``None`` closes nothing.
    """
    raise RuntimeError('The apps are not loaded.')


def end_later():
    """Called when it is noted that somebody may come back: the housekeeper looks, and in a test nobody waits for it."""


def purge_if_due():
    """Start a search for dead servers, if one is due."""
    raise RuntimeError('The apps are not loaded.')


def try_again(function):
    """Call ``function``, which ends connections, again later: the database or Redis could not be reached."""
    raise RuntimeError('The apps are not loaded.')
