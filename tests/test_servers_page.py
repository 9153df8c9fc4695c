"""docs/reference/servers.md names a test for what it says, and each option of runsockets on Channels 4."""

import argparse
import re
from pathlib import Path

import pytest

from .client import ON_CHANNELS_1

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / 'docs/reference/servers.md').read_text(encoding='utf-8')


def test_each_number_is_a_test_that_there_is():
    tests = dict(re.findall(r'^\[(\d+)\]: \S+/test_(?:servers|outages).py "(test_\w+)"$', PAGE, re.MULTILINE))
    used = re.findall(r'\[(\d+)\](?!:)', PAGE)
    assert set(used) == set(tests) and len(tests) > 15
    files = 'test_servers.py', 'test_outages.py'
    code = ''.join((ROOT / 'tests/live/channels4' / name).read_text(encoding='utf-8') for name in files)
    for name in tests.values():
        assert f'def {name}(' in code


@pytest.mark.skipif(ON_CHANNELS_1, reason='Of the command of the other engine, docs/reference/commands.md is made.')
def test_each_option_of_runsockets_has_its_line():
    from sockets.engines.channels4 import command

    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    said = {action.help for action in parser._actions} - {argparse.SUPPRESS}
    table = PAGE.partition('## Options')[2]
    for text in said:
        assert text in table.replace('`', '')
    assert len(re.findall(r'^\| `', table, re.MULTILINE)) == len(said)


@pytest.mark.skipif(ON_CHANNELS_1, reason='It is about the options that the command of the other engine lacks.')
def test_each_option_that_is_not_there_on_channels_4_has_something_in_its_place():
    from sockets.engines.channels4 import command

    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    there = {option for action in parser._actions for option in action.option_strings}
    page = (ROOT / 'docs/reference/commands.md').read_text(encoding='utf-8')
    of_channels1, _, others = page.partition('## sockets')[0].partition('<!-- end -->')
    listed = set(re.findall(r'^\| `(?:-\w, )?(--[\w-]+)', of_channels1, re.MULTILINE))
    assert len(listed) > 10 and listed - there == set(re.findall(r'`(--[\w-]+)`', others)) - there
