"""``re_path()``, under whatever name Django has it."""

try:
    from django.urls import re_path
except ImportError:  # Django 1.11
    from django.conf.urls import url as re_path

__all__ = ['re_path']
