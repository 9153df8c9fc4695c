"""How Sphinx builds these pages: ``sphinx-build -W -n --keep-going -b html docs docs/_build``."""

import os
import re
from pathlib import Path

import sockets

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

# Pages that live elsewhere, because people look for them there. Here is a stub of each.
ELSEWHERE = {
    'readme': ROOT / 'README.md',
    'changelog': ROOT / 'CHANGELOG.md',
    'contributing': ROOT / 'CONTRIBUTING.md',
    'security': ROOT / 'SECURITY.md',
    'benchmarks': ROOT / 'benchmarks/README.md',
}

project = 'sockets'
author = copyright = 'the sockets authors'
version = release = sockets.__version__

extensions = ['myst_parser']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'sockets {release}'
html_copy_source = False
html_show_sphinx = False

# Anchors of headings, made as on the sites that show Markdown, so that links lead to the same place here and there.
myst_heading_anchors = 3


def read_elsewhere(app, docname, source):
    """Fill the stubs, and have all links between pages lead to pages, wherever their files live."""
    file = ELSEWHERE.get(docname, DOCS / f'{docname}.md')
    app.env.note_dependency(str(file), docname=docname)
    stubs = {path: DOCS / f'{name}.md' for name, path in ELSEWHERE.items()}

    def lead(match):
        path, mark, anchor = match.group(1).partition('#')
        if not path or ':' in path:
            return match.group()
        target = Path(os.path.normpath(str(file.parent / path)))
        return f']({os.path.relpath(str(stubs.get(target, target)), str((DOCS / docname).parent))}{mark}{anchor})'

    source[0] = re.sub(r'\]\(([^)\s]+)\)', lead, file.read_text())


def setup(app):
    app.connect('source-read', read_elsewhere)
