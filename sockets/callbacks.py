"""What rows ask of the modules that build on them. These put their functions here when the apps are loaded."""


def end(rows, details, code):
    """Close the connections of ``rows``, which have been removed, with ``code``, telling them ``details``; run what is
    noted to run when they end. A ``code`` of ``None`` closes nothing.
    """
    raise RuntimeError('The apps are not loaded.')


def end_later():
    """Called when it is noted that somebody may come back: the housekeeper looks, and in a test nobody waits for it."""


def purge_if_due():
    """Have somebody look for dead servers if it is time to."""
    raise RuntimeError('The apps are not loaded.')


def try_again(function):
    """Have ``function``, which ends connections, called again: the database or Redis was not there to be told."""
    raise RuntimeError('The apps are not loaded.')
