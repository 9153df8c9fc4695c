"""How Sphinx builds these pages: ``sphinx-build -W -n --keep-going -b html docs docs/_build``."""
import argparse
import os
import re
from pathlib import Path

import django
from django.conf import settings
from django.core.management import load_command_class
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import sockets

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

# Pages that live elsewhere, because people look for them there. Here is a stub of each.
ELSEWHERE = {'readme': ROOT / 'README.md', 'changelog': ROOT / 'CHANGELOG.md',
             'benchmarks': ROOT / 'benchmarks/README.md'}

# As much of a project as autodoc needs to import what it documents.
settings.configure(
    INSTALLED_APPS=['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions', 'channels',
                    'sockets'],
    CHANNEL_LAYERS={'default': {'BACKEND': 'sockets.layers.InMemoryChannelLayer', 'ROUTING': []}},
    SECRET_KEY='documentation only',
)
django.setup()

project = 'sockets'
author = copyright = 'the sockets authors'
version = release = sockets.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = 'sockets {}'.format(release)
html_copy_source = False
html_show_sphinx = False

# Anchors of headings, made as on the sites that show Markdown, so that links lead to the same place here and there.
myst_heading_anchors = 3

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'


class CommandHelp(SphinxDirective):
    """``{command-help} runsockets``: what ``manage.py runsockets --help`` prints, without the options of all commands.
    """

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        command = load_command_class('sockets', name)
        parser = argparse.ArgumentParser('manage.py {}'.format(name), description=command.help, add_help=False)
        command.add_arguments(parser)
        return [nodes.literal_block(text=parser.format_help(), language='text')]


def read_elsewhere(app, docname, source):
    """Fill the stubs, and have all links between pages lead to pages, wherever their files live."""
    file = ELSEWHERE.get(docname, DOCS / '{}.md'.format(docname))
    app.env.note_dependency(str(file), docname=docname)
    stubs = {path: DOCS / '{}.md'.format(name) for name, path in ELSEWHERE.items()}

    def lead(match):
        path, mark, anchor = match.group(1).partition('#')
        if not path or ':' in path:
            return match.group()
        target = Path(os.path.normpath(str(file.parent / path)))
        return ']({}{}{})'.format(os.path.relpath(str(stubs.get(target, target)), str((DOCS / docname).parent)),
                                  mark, anchor)
    source[0] = re.sub(r'\]\(([^)\s]+)\)', lead, file.read_text())


def setup(app):
    app.connect('source-read', read_elsewhere)
    app.add_directive('command-help', CommandHelp)
