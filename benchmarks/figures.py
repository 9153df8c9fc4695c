"""What is made of the figures: medians, intervals, tables, files and plots. Standard library only, but for plots."""

import json
import math
import statistics
from pathlib import Path

CONFIDENCE = 0.95


def median(results, key):
    """Return the median of ``key`` over the rounds in ``results``."""
    return statistics.median(result[key] for result in results)


def percentile(ordered, share):
    """Return the value below which ``share`` (0 to 1) of the sorted list ``ordered`` lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def interval(values):
    """Return the interval in which the median lies with a confidence of at least 95 %, and that confidence.

    It runs between two of the sorted values, so nothing is assumed about how they are spread: the median lies below
    the k-th smallest of n values as often as fewer than k of n coins show heads. Five values or fewer cannot give 95 %;
    then it runs from the lowest to the highest.
    """
    ordered = sorted(values)
    count = len(ordered)

    def confidence(rank):
        # Of the interval from the value at ``rank`` (from 0) to the one at the same rank from the other end.
        return 1 - 2 * sum(_binomial(count, heads) for heads in range(rank + 1)) / 2**count

    rank = 0
    while rank + 1 < count / 2 and confidence(rank + 1) >= CONFIDENCE:
        rank += 1
    return ordered[rank], ordered[-1 - rank], max(confidence(rank), 0.0)


def _binomial(total, chosen):
    # math.comb is of Python 3.8.
    return math.factorial(total) // (math.factorial(chosen) * math.factorial(total - chosen))


def paired_ratios(befores, afters, is_better_high=True):
    """Return after / before of each pair, or before / after where less is better: above 1 is always an improvement."""
    return [after / before if is_better_high else before / after for before, after in zip(befores, afters)]


def verdict(ratios, wanted):
    """Return whether the interval of ``ratios`` lies above ``wanted`` ('yes'), below it ('NO') or across it."""
    low, high, confidence = interval(ratios)
    if confidence < CONFIDENCE:
        return 'too few rounds'
    return 'yes' if low >= wanted else 'NO' if high < wanted else 'perhaps'


def print_table(head, rows, first_columns=1):
    """Print ``rows`` under ``head``: the ``first_columns`` to the left, figures to the right."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print(
            '  '.join(
                cell.ljust(width) if column < first_columns else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths))
            ).rstrip()
        )
    print(flush=True)


def print_targets(targets):
    """Print each target (text, figure, whether met); return whether all were met. A figure of None was not run."""
    targets = list(targets)
    print_table(
        ['target', 'measured', 'met'],
        [
            [text, '-' if figure is None else f'{figure:.2f}', 'not run' if figure is None else 'yes' if met else 'NO']
            for text, figure, met in targets
        ],
    )
    return all(met for _, figure, met in targets if figure is not None)


def save(args, results, draw):
    """Write the files that were asked for."""
    if args.json:
        Path(args.json).write_text(
            json.dumps([{'contender': key, 'rounds': rounds} for key, rounds in results.items()], indent=1) + '\n'
        )
    if args.plot:
        draw(results, args.plot)


def pyplot():
    """Return matplotlib's ``pyplot``, which then needs no display."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot


def colour(name):
    """Return the colour of a contender's bar: ours stand out."""
    ours = 'run', 'sync', 'async', 'inline', 'ours'
    return 'tab:blue' if name.startswith(ours) or 'our layer' in name else 'tab:grey'


def draw_bars(values, form, label, path):
    """Draw ``values``, a dict by contender, as bars; ``form`` writes a value and ``label`` says what they are."""
    figure, axis = pyplot().subplots(figsize=(11, 4.5))
    bars = axis.barh(list(values), list(values.values()), color=[colour(name) for name in values])
    axis.bar_label(bars, fmt=form, padding=3)
    axis.set_xlabel(label)
    axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
