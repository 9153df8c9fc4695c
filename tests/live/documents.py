"""A page of Markdown and its code blocks, for tests that do what the page says."""

import re
import subprocess
import sys

from .. import servers

# The first line of a file's block is its name, as a comment of its language.
_NAME = re.compile(r'(?:#|//|<!--) (\S+/\S+)(?: -->)?\n')
_FENCED = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block:
    """A code block: its language, the file it names in its first line, and its text."""

    def __init__(self, language, text):
        self.language = language
        self.text = text
        name = _NAME.match(text)
        self.file = name.group(1) if name else None

    def write(self, directory):
        """Make the file, or add to it where that is what pages say of it."""
        path = directory / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a' if path.name == 'settings.py' else 'w') as target:
            target.write(self.text)


class Document:
    """A page, or a part of one."""

    def __init__(self, name, text=None):
        self.name = name
        self.text = (servers.ROOT / name).read_text() if text is None else text
        self.all_blocks = [Block(*match.groups()) for match in _FENCED.finditer(self.text)]

    def section(self, title):
        """Return what is under the heading that begins with ``title``, up to the next one of its level or above."""
        match = re.search(
            rf'^(#+) {re.escape(title)}.*?(?=^#{{1,2}} |\Z)', _blank_blocks(self.text), re.MULTILINE | re.DOTALL
        )
        assert match, f'{self.name} has no section {title!r}'
        return Document(f'{self.name}: {title}', self.text[match.start() : match.end()])

    def without(self, title):
        """Return the page without what is under the heading that begins with ``title``."""
        return Document(self.name, self.text.replace(self.section(title).text, ''))

    def blocks(self, language, file=None):
        return [block for block in self.all_blocks if block.language == language and block.file == file]

    def file(self, name):
        (found,) = [block.text for block in self.all_blocks if block.file == name]
        return found

    def files(self, top):
        """Return the blocks that are files under the directory ``top``, in order."""
        return [block for block in self.all_blocks if block.file and block.file.startswith(top + '/')]

    def commands(self):
        """Return the lines of all shell blocks."""
        return [line for block in self.blocks('bash') for line in block.text.splitlines()]

    def outside_blocks(self):
        """Return the text with its code blocks left empty, at the same places."""
        return _blank_blocks(self.text)


def _blank_blocks(text):
    return re.sub(
        r'^```.*?^```$', lambda match: re.sub(r'[^\n]', ' ', match.group()), text, flags=re.MULTILINE | re.DOTALL
    )


def manage(project, *args, **environment):
    """Run ``manage.py`` of ``project`` and return what it printed."""
    process = subprocess.run(
        [sys.executable, 'manage.py', *args],
        cwd=str(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=servers.environment(PYTHONWARNINGS='ignore', **environment),
    )
    output = process.stdout.decode()
    assert process.returncode == 0, output
    return output
