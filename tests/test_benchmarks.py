import subprocess
import sys
from types import SimpleNamespace

import pytest

from .servers import ROOT


@pytest.fixture
def modules(monkeypatch):
    """The modules of the benchmarks, which are scripts and import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    names = 'client', 'compare', 'contenders', 'echo', 'fanout', 'figures', 'scale', 'simulate', 'sites'
    names += 'talkers', 'virtualenvs'
    before = {name: sys.modules.pop(name, None) for name in names}
    yield SimpleNamespace(**{name: __import__(name) for name in names})
    for name, module in before.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


@pytest.fixture
def figures(modules):
    return modules.figures


def test_the_dispatch_benchmark_prints_its_curve():
    output = subprocess.check_output([sys.executable, str(ROOT / 'benchmarks/dispatch.py'), '--rounds', '1']).decode()
    assert [line.split()[-4] for line in output.splitlines()[1:]] == ['10', '100', '1000'] * 2


# Statistics


@pytest.mark.parametrize(
    'count, ranks, confidence',
    [
        # From a table of the binomial distribution.
        (6, (1, 6), 0.969),
        (7, (1, 7), 0.984),
        (8, (1, 8), 0.992),
        (9, (2, 8), 0.961),
        (10, (2, 9), 0.979),
        (15, (4, 12), 0.965),
        (20, (6, 15), 0.959),
        (30, (10, 21), 0.957),
    ],
)
def test_the_interval_of_a_median_runs_between_the_ranks_of_the_binomial_distribution(
    figures, count, ranks, confidence
):
    values = list(range(1, count + 1))
    low, high, reached = figures.interval(values[::-1])
    assert (low, high) == ranks
    assert reached == pytest.approx(confidence, abs=0.001)


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5])
def test_few_values_give_their_extremes_and_say_that_this_is_not_enough(figures, count):
    low, high, confidence = figures.interval(range(count))
    assert (low, high) == (0, count - 1)
    assert 0 <= confidence < 0.95


@pytest.mark.parametrize(
    'ratios, said',
    [
        ([0.95] * 10, 'yes'),
        ([0.9] * 10, 'yes'),
        ([0.8] * 10, 'NO'),
        ([0.8] * 5 + [1.0] * 5, 'perhaps'),
        # One wild round does not count.
        ([0.1] + [1.0] * 9, 'yes'),
        ([0.8] * 5, 'too few rounds'),
        ([2.0], 'too few rounds'),
    ],
)
def test_a_verdict_is_about_the_whole_interval(figures, ratios, said):
    assert figures.verdict(ratios, 0.9) == said


def test_a_paired_ratio_above_one_is_an_improvement_whichever_way_the_figure_runs(figures):
    assert figures.paired_ratios([100, 200], [150, 100]) == [1.5, 0.5]
    assert figures.paired_ratios([100, 200], [50, 400], is_better_high=False) == [2, 0.5]


def test_a_percentile_is_a_value_that_was_measured(figures):
    assert [figures.percentile(list(range(100)), share) for share in (0, 0.5, 0.99, 1)] == [0, 50, 99, 99]
    assert figures.percentile([7], 0.99) == 7


def test_a_table_keeps_names_to_the_left_and_figures_to_the_right(figures, capsys):
    figures.print_table(['name', 'kind', 'n'], [['a', 'long kind', 1], ['long name', 'b', 100]], 2)
    assert capsys.readouterr().out == (
        'name       kind         n\na          long kind    1\nlong name  b          100\n\n'
    )


def test_a_target_that_was_not_run_is_neither_met_nor_missed(figures, capsys):
    assert figures.print_targets(iter([('a', 1.0, True), ('b', None, False)]))
    assert not figures.print_targets(iter([('a', 1.0, True), ('b', 0.5, False)]))
    assert 'not run' in capsys.readouterr().out


# Contenders


def test_each_contender_has_a_name_of_its_own_and_says_whom_it_asks_for(modules):
    for script in (modules.echo, modules.talkers, modules.fanout, modules.scale, modules.compare):
        names = [contender.name for contender in script.PARTICIPANTS]
        assert len(set(names)) == len(names)
        for contender in script.PARTICIPANTS:
            assert contender.asks in ('', 'user', 'permission')
            assert bool(contender.asks) == any(word in contender.path for word in ('/user/', '/login/', 'perm')), (
                contender
            )


def test_what_a_contender_runs_on_is_told_with_its_accelerators(modules):
    contenders = {contender.name: contender for contender in modules.echo.PARTICIPANTS}
    found = {
        'versions': {'Django': '9.9', 'daphne': '1.4', 'uvicorn': '0.5'},
        'accelerators': {
            'uvloop': 'uvloop 1',
            'httptools': 'httptools 2',
            'msgpack': 'msgpack in C',
            'autobahn': 'autobahn in Python',
        },
    }

    def description(name):
        return modules.contenders.description(contenders[name], found)

    assert description('Channels 4 async, uvicorn') == [
        '9.9',
        'uvicorn 0.5',
        'channels_redis.core.RedisChannelLayer',
        'uvloop 1, httptools 2, msgpack in C',
    ]
    assert description('runsockets, memory, user') == [
        '9.9',
        'runsockets, daphne 1.4',
        'sockets.layers.InMemoryChannelLayer',
        'autobahn in Python',
    ]
    assert description('daphne + runworker, our layer, routed') == [
        '9.9',
        'daphne 1.4 + 1 runworker',
        'sockets.layers.RedisChannelLayer',
        'autobahn in Python, msgpack in C',
    ]
    assert description('limit: autobahn, no Django') == ['-', 'limit.py', '-', 'autobahn in Python']
    assert description('limit: the client itself') == ['-', 'client.py', '-', 'none']


class Answer:
    def __init__(self, body):
        self.read = lambda: body

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize(
    'loop, http, is_fast',
    [
        ('uvloop.Loop', 'uvicorn.protocols.http.httptools_impl', True),
        ('asyncio.unix_events._UnixSelectorEventLoop', 'uvicorn.protocols.http.httptools_impl', False),
        ('uvloop.Loop', 'uvicorn.protocols.http.h11_impl', False),
    ],
)
def test_a_uvicorn_without_uvloop_and_httptools_is_not_measured(modules, monkeypatch, loop, http, is_fast):
    # Earlier figures were of one without them, which made the peer slower than it is.
    monkeypatch.setattr(
        modules.sites.urllib.request,
        'urlopen',
        lambda url, timeout: Answer(f'{{"loop": "{loop}", "http": "{http}"}}'.encode()),
    )
    if is_fast:
        modules.sites.refuse_slow_uvicorn(8000)
    else:
        with pytest.raises(SystemExit, match='uvicorn.standard.'):
            modules.sites.refuse_slow_uvicorn(8000)


# The client


def test_an_answer_that_is_no_echo_fails_the_client(modules):
    client = modules.client
    client.check_echo(b'{"text": "Is there anybody going to listen to my story?",   "type": "ECHO"}')
    for payload in (b'{"type": "ERROR", "code": "server_error"}', b'{"type": "ECHO"}', b'[]'):
        with pytest.raises(client.Failure, match='no echo'):
            client.check_echo(payload)


def test_a_connection_that_failed_fails_the_round(modules):
    client = modules.client
    well, closed = SimpleNamespace(failure=None), SimpleNamespace(failure='closed with 4403')
    client.check([well, well])
    with pytest.raises(client.Failure, match='1 of 2 connections failed, the first: closed with 4403'):
        client.check([well, closed])


@pytest.mark.parametrize('size', [0, 1, 125, 126, 1000, 65535])
@pytest.mark.parametrize('mask', [b'', b'\x5a\xa5\x3c\xc3'])
def test_the_client_reads_frames_as_it_writes_them(modules, size, mask):
    client = modules.client
    payload = bytes(n % 251 for n in range(size))
    whole = client.frame(client.TEXT, payload, mask)
    buffer = bytearray(whole[:-1] if size else whole[:1])
    assert list(client.frames(buffer)) == []
    buffer += (whole[-1:] if size else whole[1:]) + whole
    assert [(opcode, client.masked(got, mask) if mask else got) for opcode, mask, got in client.frames(buffer)] == [
        (client.TEXT, payload)
    ] * 2
    assert not buffer


def test_latencies_are_told_in_milliseconds_and_none_at_all_is_a_failure(modules):
    client = modules.client
    assert client.percentiles([0.003, 0.001, 0.002]) == {'p50': 2, 'p95': 3, 'p99': 3}
    with pytest.raises(client.Failure, match='nothing was answered'):
        client.percentiles([])


# The comparison of two commits


def rounds(number, **changes):
    result = {
        'rate': 100.0,
        'rate, 1': 10.0,
        'cpu': 50.0,
        'last': 20.0,
        'connects': 300.0,
        'memory': 9.0,
        'rate, user': 95.0,
        'rate, login': 95.0,
        'rate, login and permission': 95.0,
    }
    return [dict(result, **changes)] * number


def report(compare, before, after, name='runsockets, memory'):
    return compare.report(
        {name: [{'aaa': one, 'bbb': other} for one, other in zip(before, after)]}, ['aaa', 'bbb'], 0.9
    )


@pytest.mark.parametrize(
    'changes, holds',
    [
        ({}, True),
        ({'rate': 95.0}, True),
        ({'rate': 80.0}, False),
        ({'memory': 12.0}, False),
        ({'memory': 6.0}, True),
        ({'last': 30.0}, False),
        ({'connects': 200.0}, False),
        # Of itself: it is the later commit that is judged.
        ({'rate, user': 50.0}, False),
    ],
)
def test_a_commit_that_is_slower_in_one_figure_does_not_pass(modules, capsys, changes, holds):
    assert report(modules.compare, rounds(10), rounds(10, **changes)) is holds
    assert ('NO' in capsys.readouterr().out) is not holds


def test_the_earlier_commit_and_the_classic_pair_are_not_judged_by_their_guards(modules, capsys):
    slow = {'rate, user': 5.0, 'rate, login': 5.0, 'rate, login and permission': 5.0}
    assert report(modules.compare, rounds(10, **slow), rounds(10))
    assert report(modules.compare, rounds(10), rounds(10, **slow), 'daphne + runworker')


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='there are no commits to compare here')
def test_a_checkout_has_the_package_of_its_commit_and_the_benchmarks_of_today(modules):
    hash, title = modules.compare.commit('HEAD')
    assert hash and title
    with modules.compare.checkouts([hash]) as found:
        root = found[hash]
        assert (root / 'sockets/router.py').exists()
        assert (root / 'benchmarks/compare.py').resolve() == ROOT / 'benchmarks/compare.py'
        modules.compare.check_import(root, sys.executable)
        with pytest.raises(SystemExit, match='would be measured'):
            modules.compare.check_import(ROOT / 'docs', sys.executable)
    assert not root.exists()


def test_the_simulation_agrees_with_what_was_measured_with_one_server_and_with_two(modules):
    assert [name for name, _, _, agrees in modules.simulate.checked(1) if not agrees] == []


def test_the_simulation_says_the_same_each_time_and_something_else_with_another_seed(modules):
    def back(seed):
        return modules.simulate.Crowd(seed, 2, 200, 10, 2).back

    assert back(1) == back(1) != back(2)


def test_a_part_of_the_simulation_is_full_sooner_if_there_is_less_of_it(modules):
    few, many = (dict(modules.simulate.walls(*parts)) for parts in ((4, 1), (8, 2)))
    assert few['PostgreSQL with 4 cores'] < many['PostgreSQL with 8 cores']
    assert few['1 Redis server'] < many['2 Redis servers']


def test_a_redis_that_hangs_costs_others_one_time_out(modules):
    calm, troubled = (modules.simulate.Failover(1, 3, 8, away, seconds=10) for away in (0, 5))
    assert calm.lost == 0 and calm.p(1) < 0.05
    assert troubled.lost and 1 < troubled.p(1) <= 2 * modules.simulate.REDIS_TIMEOUT
