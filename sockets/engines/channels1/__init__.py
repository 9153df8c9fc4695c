"""Channels 1.x, with daphne and its workers."""

from . import compat

compat.patch_six_importer()
