import subprocess
import sys

from .servers import ROOT


def test_the_dispatch_benchmark_prints_its_curve():
    output = subprocess.check_output(
        [sys.executable, str(ROOT / 'benchmarks/dispatch.py'), '--rounds', '1']).decode()
    assert [line.split()[-4] for line in output.splitlines()[1:]] == ['10', '100', '1000'] * 2
