import ast
import os
import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent

# The address of the repository. This one is a placeholder: names that end in .example belong to nobody. As long as it
# is here, the package index refuses the upload (see the classifiers).
REPOSITORY = 'https://repository.example/django-routed-sockets'


def read(name):
    return (here / name).read_text(encoding='utf-8')


# Read, not imported: the build environment has no Django.
version = re.search(r"^__version__ = '(.+)'$", read('sockets/__init__.py'), re.MULTILINE).group(1)


def readme():
    """Return the README for another site: its relative links lead to the files of this release in the repository."""
    # A package index gives headings no names.
    page = read('README.md').replace('](#', '](README.md#')
    return re.sub(r'\]\((?![a-z]+:)', f']({REPOSITORY}/blob/v{version}/', page)


# The name of the distribution of each stack.
DISTRIBUTIONS = ast.literal_eval(
    re.search(r'^DISTRIBUTIONS = (\{.+?\})', read('sockets/engines/__init__.py'), re.MULTILINE | re.DOTALL).group(1)
)


def chosen_stack():
    """Return the stack to build for: that of this sdist, else SOCKETS_STACK, else channels1."""
    if (here / 'PKG-INFO').exists():
        # Only an sdist has it. Whoever installs one gets what its name says, whatever the variable is.
        name = re.search(r'^Name: (.+)$', read('PKG-INFO'), re.MULTILINE).group(1)
        return {name: stack for stack, name in DISTRIBUTIONS.items()}[name]
    stack = os.environ.get('SOCKETS_STACK') or 'channels1'
    if stack not in DISTRIBUTIONS:
        raise SystemExit(f'SOCKETS_STACK is {stack!r}. Unset it, or set it to one of: {", ".join(DISTRIBUTIONS)}.')
    return stack


CHANNELS1 = {
    'python_requires': '>=3.7',
    'install_requires': [
        # Django 3 needs asgiref 3, Channels 1 needs asgiref 1. Which old Django runs on which new Python was tried:
        # docs/reference/compatibility.md has the table, tox.ini the runs.
        'Django>=1.11,<3',
        'Django>=2.1; python_version >= "3.10"',
        'Django>=2.2.28; python_version >= "3.11"',
        # Channels 2 is another framework: consumers are instances, the routing is ASGI 3, and workers are gone.
        'channels>=1.1.8,<2',
        # What Channels 1 speaks to. It names them without an upper end, and their next versions speak another ASGI.
        'daphne>=1.4.2,<2',
        'asgiref>=1.1.2,<2',
        'asgi_redis>=1.4.3,<2',
        # redis-py 3 swapped the arguments of zadd(), with which asgi_redis 1 keeps its groups.
        'redis~=2.10.6',
        # autobahn 25.11 and later bring msgpack 1, which overwrites the files of asgi_redis's msgpack-python: each
        # Redis worker would die on its first message, and "pip check" sees nothing.
        'autobahn<25',
        # Django 2.2 imports distutils, which left Python in 3.12 and setuptools in 82.
        'setuptools<82; python_version >= "3.12"',
        # Django 2.2 imports cgi, which left Python in 3.13.
        'legacy-cgi; python_version >= "3.13"',
    ],
    'extras_require': {
        # psycopg2 2.8 does not import on Python 3.11; sockets/engines/channels1/compat.py makes Django 2.2 get on with 2.9.
        'postgres': ['psycopg2-binary>=2.9,<3'],
    },
    'test': [
        # Two of what validates contents; neither is needed without them.
        'djangorestframework<3.13',
        'pydantic',
        # Tokens of clients without a session.
        'djangorestframework-simplejwt<5.3',
        'PyJWT>=2,<3',
        'hypothesis',
        'pytest',
        # The last one that runs with Django 2.2 and older.
        'pytest-django==4.5.2',
        'websocket-client',
    ],
    # daphne 4 brings it.
    'live': ['twisted[tls]'],
    'pythons': ['3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13'],
    'djangos': ['1.11', '2.0', '2.1', '2.2'],
}

CHANNELS4 = {
    'python_requires': '>=3.10',
    'install_requires': [
        'Django>=4.2',
        'channels>=4.3,<5',
        # 3.12 mends deadlocks that 3.9 brought.
        'asgiref>=3.12,<4',
    ],
    'extras_require': {
        'daphne': ['daphne>=4.2,<5'],
        # "standard" brings the event loop and the parsers that are written in C.
        'uvicorn': ['uvicorn[standard]>=0.30'],
        # redis-py 8 gives up reading after 5 s, as long as the core layer waits for a message: idle servers get errors.
        'redis': ['channels_redis>=4.3,<5', 'redis<8'],
        'postgres': ['psycopg[binary]>=3.1.12,<4'],
    },
    'test': [
        'djangorestframework',
        'pydantic',
        # Tokens of clients without a session.
        'djangorestframework-simplejwt',
        'PyJWT>=2,<3',
        # Sessions of another app.
        'django-user-sessions>=2',
        'hypothesis',
        'pytest',
        'pytest-asyncio',
        'pytest-django>=4.9',
        'websocket-client',
    ],
    # With psycopg2, live tests themselves look into the database.
    'live': ['psutil', 'psycopg2-binary>=2.9,<3'],
    'pythons': ['3.10', '3.11', '3.12', '3.13'],
    'djangos': ['4.2', '5.2', '6.0', '6.1'],
}

stack = chosen_stack()
chosen = {'channels1': CHANNELS1, 'channels4': CHANNELS4}[stack]
extras = chosen['extras_require']
test = chosen['test'] + sum(extras.values(), [])
extras.update(
    {
        'test': test,
        # What live tests need besides: a browser's driver, a builder of packages, TLS, and a driver for MariaDB that
        # need not be compiled.
        'live': test + chosen['live'] + ['build', 'jsonschema', 'PyMySQL', 'pytest-xdist', 'selenium>=4'],
        # scripts/test -e lint. The version of ruff is that of .pre-commit-config.yaml: another one formats differently.
        'lint': test + ['mypy>=1.8', 'pre-commit', 'ruff==0.17.6'],
        # scripts/docs; Sphinx 8.2 runs on Python 3.11 and later.
        'docs': ['furo>=2025.7', 'myst-parser>=4,<5', 'sphinx>=8.2,<9'],
    }
)

setup(
    name=DISTRIBUTIONS[stack],
    version=version,
    description='Routed websockets for Django: decorate methods of a view, get a socket beside its page.',
    long_description=readme(),
    long_description_content_type='text/markdown',
    url=REPOSITORY,
    project_urls={
        'Documentation': f'{REPOSITORY}/blob/v{version}/docs/index.md',
        'Changelog': f'{REPOSITORY}/blob/v{version}/CHANGELOG.md',
        'Issues': f'{REPOSITORY}/issues',
        'Source': REPOSITORY,
    },
    author='the sockets authors',
    license='MIT',
    keywords='django channels websocket router',
    packages=find_packages(include=['sockets', 'sockets.*']),
    include_package_data=True,
    zip_safe=False,
    python_requires=chosen['python_requires'],
    install_requires=chosen['install_requires'],
    extras_require=extras,
    entry_points={
        # Named like the module, so that "pytest_plugins = [...]" may name it, too.
        'pytest11': ['sockets.pytest_plugin = sockets.pytest_plugin'],
    },
    # tox builds both from one checkout at the same time.
    options={'build': {'build_base': 'build' if stack == 'channels1' else f'build/{stack}'}},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Web Environment',
        'Framework :: Django',
        *(f'Framework :: Django :: {number}' for number in chosen['djangos']),
        'Intended Audience :: Developers',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        *(f'Programming Language :: Python :: {number}' for number in chosen['pythons']),
        'Topic :: Internet :: WWW/HTTP',
        'Typing :: Typed',
    ]
    + (['Private :: Do Not Upload'] if '.example/' in REPOSITORY else []),
)
