"""The admin's searches on PostgreSQL, which has indexes that SQLite has not."""

from .. import servers


def test_what_is_searched_and_filtered_is_found_by_an_index(database_url):
    printed = servers.run_python(
        '-m',
        'pytest',
        '-q',
        '-p',
        'no:cacheprovider',
        'tests/test_admin.py',
        '-k',
        'index',
        env={'TEST_DATABASE_URL': database_url},
    )
    assert ' passed' in printed and 'skipped' not in printed
