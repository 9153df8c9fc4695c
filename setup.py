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
    return re.sub(r'\]\((?![a-z]+:|#)', f']({REPOSITORY}/blob/v{version}/', read('README.md'))


test = [
    # Two of what validates contents; neither is needed without them.
    'djangorestframework<3.13',
    'pydantic',
    # Tokens of clients without a session.
    'djangorestframework-simplejwt<5.3',
    'PyJWT>=2,<3',
    'hypothesis',
    'psycopg2-binary>=2.9,<3',
    'pytest',
    # The last one that runs with Django 2.2 and older.
    'pytest-django==4.5.2',
    'websocket-client',
]

setup(
    name='django-routed-sockets',
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
    python_requires='>=3.7',
    install_requires=[
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
    entry_points={
        # Named like the module, so that "pytest_plugins = [...]" may name it, too.
        'pytest11': ['sockets.pytest_plugin = sockets.pytest_plugin'],
    },
    extras_require={
        # scripts/docs; Sphinx 8.2 runs on Python 3.11 and later.
        'docs': ['furo>=2025.7', 'myst-parser>=4,<5', 'sphinx>=8.2,<9'],
        # scripts/test -e lint. The version of ruff is that of .pre-commit-config.yaml: another one formats differently.
        'lint': test + ['mypy>=1.8', 'pre-commit', 'ruff==0.17.6'],
        # psycopg2 2.8 does not import on Python 3.11; sockets/engines/channels1/compat.py makes Django 2.2 get on with 2.9.
        'postgres': ['psycopg2-binary>=2.9,<3'],
        'test': test,
        # What live tests need besides: a browser's driver, a builder of packages, TLS, and a driver for MariaDB that
        # need not be compiled.
        'live': test + ['build', 'jsonschema', 'PyMySQL', 'selenium>=4', 'twisted[tls]'],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Web Environment',
        'Framework :: Django',
        'Framework :: Django :: 1.11',
        'Framework :: Django :: 2.0',
        'Framework :: Django :: 2.1',
        'Framework :: Django :: 2.2',
        'Intended Audience :: Developers',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.7',
        'Programming Language :: Python :: 3.8',
        'Programming Language :: Python :: 3.9',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Internet :: WWW/HTTP',
        'Typing :: Typed',
    ]
    + (['Private :: Do Not Upload'] if '.example/' in REPOSITORY else []),
)
