"""What the housekeeper asks of streams, and does about them."""

from functools import partial

from . import Stream, following, numbering, pushes, replays, retention
from .tables import heads

# By the question that finds them.
STEPS = {
    'unnumbered': partial(numbering.number_left, Stream),
    'to_remind': partial(pushes.remind, numbering.REMIND_AFTER),
    'to_trim': retention.trim,
}

look_at_settings = retention.look_at_settings


def questions():
    """Return what is asked every second, as querysets by name."""
    return {'unnumbered': numbering.unnumbered(), 'to_remind': heads().to_remind(), 'to_trim': heads().to_trim()}


def look_here():
    """Do what is to be done every second in this process, whatever the questions find."""
    replays.cache.sweep()
    following.teller.tell_again()
