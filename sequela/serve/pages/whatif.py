"""A what-if in the terminal: both arms side by side, and in words what the difference is not."""

from __future__ import annotations

WIDTH = 120  # at least; narrower terminals wrap
COLUMNS = ("task", "unit", "changed", "recorded", "what if", "difference", "sampling", "paired")
LEGEND = (
    "Means over {over}. The difference has a 95 % interval by bootstrap over patients; sampling: its standard error "
    "from the number of futures; paired: the share of that variance removed by common random numbers."
)


def print_whatif(result: dict) -> None:
    """Print what was edited in how many histories, one row per task, and what the difference is not, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = Console(width=max(WIDTH, console.width)) if console.is_terminal else Console(width=WIDTH)
    for edit, histories in result["edits"].items():
        found = f"{histories:,} histories" if histories else "in no history, so it changes nothing"
        console.print(f"{edit}: {found}", highlight=False, markup=False)
    over = "all patients" if result["everyone"] else "the patients whose history the model reads differently"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("task", "unit") else "right", no_wrap=True)
    for name, summary in result["tasks"].items():
        table.add_row(name, summary["unit"], *cells(summary))
    console.print(LEGEND.format(over=over), highlight=False)
    console.print(table)
    for name, summary in result["tasks"].items():
        for line in remarks(summary):
            console.print(f"{name}: {line}", highlight=False, markup=False)
    console.print(result["meaning"], highlight=False, markup=False)


def cells(summary: dict) -> list[str]:
    """The cells of one task's row.

    >>> cells({"changed": 3, "patients": 4, "as_recorded": 0.12, "what_if": 0.3456, "standard_error": 0.01,
    ...     "difference": {"value": 0.2256, "low": 0.2, "high": 0.25}, "variance_removed": 0.305})
    ['3 of 4', '0.120', '0.346', '+0.226 [+0.200, +0.250]', '0.010', '30 %']
    """
    difference = summary["difference"]
    text = "-"
    if difference:
        text = _signed(difference["value"])
        if difference["low"] is not None:
            text += f" [{_signed(difference['low'])}, {_signed(difference['high'])}]"
    removed = summary["variance_removed"]
    return [
        f"{summary['changed']:,} of {summary['patients']:,}",
        *("-" if summary[arm] is None else f"{summary[arm]:.3f}" for arm in ("as_recorded", "what_if")),
        text,
        "-" if summary["standard_error"] is None else f"{summary['standard_error']:.3f}",
        "-" if removed is None else f"{100 * removed:.0f} %",
    ]


def remarks(summary: dict) -> list[str]:
    """Remarks on one task: that nothing changed, or that patients have no answer.

    >>> remarks({"changed": 0, "unanswered": 2})
    ['the edits change nothing that the model reads, so there is nothing to compare.', '2 have no answer in one arm.']
    """
    lines = []
    if not summary["changed"]:
        lines.append("the edits change nothing that the model reads, so there is nothing to compare.")
    if summary["unanswered"]:
        lines.append(f"{summary['unanswered']:,} have no answer in one arm.")
    return lines


def _signed(value: float) -> str:
    return f"{value:+.3f}"
