"""The live display of a run in the terminal, and the table at its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from featcx_core.metrics import METRICS
from featcx_core.wording import mark
from flows.cli.terminal import print_table
from tasks.env import Env
from tasks.progress import EARLY, Note, early_results, read_notes

if TYPE_CHECKING:
    from featcx_core.studies.prediction import Prediction
    from tasks.env import Env

ShowEarly = Callable[[dict[str, Any]], None]
MARKS = {"computed": ("✓", "green"), "cached": ("✓ Cached", "cyan"), "failed": ("✗", "red"), "running": ("…", "yellow")}
LEGEND = (
    "signif. = what chains with other seeds share of raw = Var[c] / Var[f], residual = Var[f − Φ] / Var[f], over the pool; "
    "acc. Φ: the head's accuracy on Φ in place of f. ○: an order not resolved at this budget and width; ?: not told apart "
    "from zero; !: above the residual of the order before."
)


@contextlib.contextmanager
def live_display(
    env: Env, stages: int, console: Console, show_early: ShowEarly = lambda results: None
) -> Iterator[None]:
    """Shows what the run's stages say of themselves until the block ends; one line a stage where there is no terminal.

    `show_early` is called with what the run has found so far, each time that there is more of it.
    """
    began, told, done = time.monotonic(), set[tuple[str, float]](), threading.Event()
    live = Live(console=console, refresh_per_second=4, get_renderable=lambda: _picture(env, stages, began))

    def lines() -> None:
        for note in read_notes(env.store, env.run):
            if note.state in ("computed", "cached", "failed") and (note.label, note.since) not in told:
                told.add((note.label, note.since))
                console.print(f"{note.label}: {note.state} {note.seconds:.1f} s {note.text}".rstrip(), highlight=False)

    def watch() -> None:
        last, to_come = False, list(EARLY)
        while not last:
            last = done.wait(0.5)
            if not console.is_terminal:
                lines()
            if to_come and not last and (results := early_results(env, to_come[0])) is not None:
                del to_come[0]
                show_early(results)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with live if console.is_terminal else contextlib.nullcontext():
            yield
    finally:
        done.set()
        watcher.join()


def _picture(env: Env, stages: int, began: float) -> Group:
    notes = read_notes(env.store, env.run)
    finished = [note for note in notes if note.state in ("computed", "cached")]
    head = f"{len(finished)} of {stages} stages, {time.monotonic() - began:.0f} s"
    if not notes:
        head += ", starting the workflow server"
    following = [note.label for note in notes if note.state == "waiting"]
    then = Text(f"then {', '.join(following[:3])}{', …' if following[3:] else ''}" if following else "", "dim")
    return Group(
        Text(head, "bold"),
        notes_table([*finished[-6:], *(note for note in notes if note.state in ("running", "failed"))]),
        then,
    )


def notes_table(notes: list[Note]) -> Table:
    """A line a stage: its state, how far it is, and what it says of itself."""
    rows = Table.grid(padding=(0, 2))
    for note in notes:
        mark, colour = MARKS[note.state]
        seconds = "" if note.state == "cached" else f"{_elapsed(note):.0f} s"
        rows.add_row(Text(mark, colour), note.label, _bar(note), note.text, seconds, _remaining(note))
    return rows


def counted(notes: list[Note]) -> str:
    """'12 computed, 3 cached, 2 running, 4 waiting'."""
    states = [note.state for note in notes]
    there = [f"{states.count(s)} {s}" for s in ("computed", "cached", "running", "waiting", "failed") if s in states]
    return ", ".join(there) or "starting"


def _bar(note: Note) -> Progress | str:
    if note.state != "running" or not note.total:
        return ""
    bar = Progress(BarColumn(24), TaskProgressColumn(), TextColumn(""))
    bar.add_task("", completed=note.done, total=note.total)
    return bar


def _elapsed(note: Note) -> float:
    return time.time() - note.since if note.state == "running" else note.seconds


def _remaining(note: Note) -> str:
    return f"{note.left:.0f} s left" if note.state == "running" and note.left is not None else ""


def _clear(row: dict[str, Any]) -> bool:
    """Whether the over-fitting level is told apart from zero; of one that is not known there is nothing to say."""
    low, high = row["overfitting_ci"]
    if row["overfitting"] is None:
        return True
    return row["overfitting_stable"] and low is not None and high is not None and not low <= 0 <= high


def summary_table(results: dict[str, Any]) -> Table:
    """A row an order of one analysed network."""
    table = Table(
        title="Components by complexity order",
        title_justify="left",
        caption=Text(LEGEND, "dim"),
        caption_justify="left",
    )
    shown = {metric.name: (metric.short, metric.form) for metric in METRICS if metric.short}
    columns = {"order": ("order", "d")} | shown
    for heading, _ in columns.values():
        table.add_column(heading, justify="right")
    for row in results["orders"]:
        marks = {
            "overfitting": "" if _clear(row) else "?",
            "residual": "!" if row["residual_rises"] else "",
            "order": mark(row["resolved"]),
        }
        table.add_row(*(_cell(row[name], form) + marks.get(name, "") for name, (_, form) in columns.items()))
    return table


def show_run(console: Console, results: dict[str, Any], report: str) -> None:
    """The table of one analysed target, its accuracies, what it took, and where its report lies."""
    spec, target, stages = results["spec"]["target"], results["target"], results["stages"]
    print_table(console, summary_table(results))
    console.print(
        f"{spec['net']}, n = {spec['samples']}: test accuracy {target['test_accuracy']:.1%}, "
        f"train {target['train_accuracy']:.1%}. {stages['run']} stages computed, {stages['cached']} Cached, "
        f"{results['seconds']:.0f} s.",
        highlight=False,
    )
    console.print(f"{report}: {results['report'] or to_come(results['spec'])}", highlight=False, soft_wrap=True)


def to_come(spec: dict[str, Any]) -> str:
    """What a first table does not tell yet, by the run's settings."""
    settings, names = spec["disentangler"], ["effectiveness", "over-fitting"]
    if spec["reliability"]["enabled"]:
        names += ["reliability", "decodability"]
    if settings["continuation"] and settings["chains"] > 1 and len(settings["blocks"]) > 1:
        names += ["which orders are resolved: draw nothing from them yet"]
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def sweep_table(results: dict[str, Any]) -> Table:
    """A row a target: its accuracies, its reach, and what substitution by the chosen order gains."""
    table = Table(title="Targets: accuracies; gain in test accuracy with Φ of the chosen order", title_justify="left")
    table.add_column("target", overflow="fold")
    for heading in ("train", "test", "residual", "order", "gain", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in results["points"]:
        target, gain = point["target"], point["gain"]
        ends = f"[{_cell(gain['low'], '+.1%')}, {_cell(gain['high'], '+.1%')}]"
        scores = [_cell(target[f"{split}_accuracy"], ".1%") for split in ("train", "test")]
        residual = _cell(point["orders"][-1]["residual"], ".3f")
        table.add_row(point["name"], *scores, residual, str(point["chosen_order"]), _cell(gain["gain"], "+.1%"), ends)
    return table


def _cell(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def comparison_table(results: dict[str, Any]) -> Table:
    """A row a (metric, order): A, B, their difference with its interval."""
    table = Table(title="B − A", title_justify="left")
    for heading in ("metric", "order", "A", "B", "difference", "interval", "p (Holm)"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in results["differences"]:
        ends = f"[{_cell(row['difference_low'], '.3g')}, {_cell(row['difference_high'], '.3g')}]"
        values = [_cell(row[name], ".3g") for name in ("original", "value", "difference")]
        table.add_row(
            row["metric"], f"{row['order']}{mark(row['resolved'])}", *values, ends, _cell(row["p_holm"], ".2g")
        )
    return table


def prediction_table(result: Prediction) -> Table:
    """How well accuracy is predicted from the components' shares, and from the sample count alone."""
    found = result.as_dict()
    table = Table(title=f"{found['rows']} targets, {found['predictors']} predictors", title_justify="left")
    for heading in ("", "R² in sample", "leave one cell out", "leave one architecture out", "leave one size out"):
        table.add_column(heading, justify="right" if heading else "left")
    parts, base = (
        [found[name] or {} for name in ("leave_one_out", "by_arch", "by_samples")],
        found["baseline_log_samples"],
    )
    shares = [found["published"]["r2"], *(part.get("r2") for part in parts)]
    log_n = [base[name] for name in ("r2", "leave_one_out_r2", "by_arch_r2", "by_samples_r2")]
    table.add_row("reliable and unreliable shares", *(_cell(value, ".3f") for value in shares))
    table.add_row("log n", *(_cell(value, ".3f") for value in log_n))
    table.add_row("log n, quadratic", "", _cell(base["quadratic_leave_one_out_r2"], ".3f"), "", "")
    table.add_row("shares and log n", "", _cell(found["combined"]["leave_one_out_r2"], ".3f"), "", "")
    published = found["published"]
    table.caption = (
        f"RMSE {published['rmse']:.4f}; mean absolute error over 1,000 random splits: train "
        f"{published['split_train_mae']:.4f}, test {published['split_test_mae']:.4f}; partial R² over log n "
        f"{_cell(found['partial_r2'], '.3f')}, by chance {_cell(found['partial_r2_by_chance'], '.3f')} "
        f"(p = {_cell(found['partial_p'], '.2g')}). A cell: the targets of one architecture and size."
    )
    return table


def tasks_table(results: dict[str, Any]) -> Table:
    """A row an n: std[c] / std[f] at each order and the learner's R², means over seeds."""
    tasks = results["tasks"]
    orders = [row["order"] for row in tasks[0]["orders"]]
    table = Table(title="std c / std f by complexity order, mean over seeds", title_justify="left")
    for heading in ("n", *(f"order {order}" for order in orders), "learner's R²"):
        table.add_column(heading, justify="right")
    for depth in dict.fromkeys(task["n"] for task in tasks):
        own = [task for task in tasks if task["n"] == depth]
        columns = [[task["orders"][i]["std_ratio"] for task in own] for i in range(len(orders))]
        table.add_row(str(depth), *(_mean(values) for values in [*columns, [task["learner_r2"] for task in own]]))
    return table


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "–"
