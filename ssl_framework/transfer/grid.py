"""Runs a study: cells in several processes, each row on disk as soon as it is measured, and none measured twice."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssl_framework import machine
from ssl_framework.transfer import rows as rows_file
from ssl_framework.transfer.bench import Bench
from ssl_framework.transfer.cells import Cell, head, trained, unsuited
from ssl_framework.transfer.hardened import Classifier, Probe, hardened
from ssl_framework.transfer.methods import METHODS
from ssl_framework.transfer.plan import Plan
from ssl_framework.transfer.probes import Vectors, probed, start_of

Row = dict[str, Any]
Make = Callable[[], Bench]


class _Desk(NamedTuple):
    """What a process measures with."""

    bench: Bench
    plan: Plan
    vectors: Vectors


class _Here:
    """The desk of this process."""

    desk: _Desk | None = None


def cells_of(plan: Plan) -> list[Cell]:
    """The grid in the order in which it is measured: the first seed chooses, so it comes first; cheap ones before dear ones."""
    seeds = list(plan.seeds)
    probes_first = sorted(plan.methods, key=lambda name: METHODS[name].policy is not None)
    cells = [Cell(name, budget, seed) for seed in seeds for name in probes_first for budget in plan.budgets]
    noisy = [name for name in plan.noisy if name in plan.methods]
    few = plan.judged[: plan.noisy_seeds]
    return cells + [Cell(name, plan.largest, seed, share) for seed in few for name in noisy for share in plan.label_noise]


def parted(cells: Sequence[Cell], part: int, parts: int) -> list[Cell]:
    """The cells of one of several machines: those of one method and budget stay together, for they share a choice."""
    groups = list(dict.fromkeys((cell.method, cell.budget) for cell in cells))
    mine = set(groups[part::parts])
    return [cell for cell in cells if (cell.method, cell.budget) in mine]


def study(
    make: Make,
    plan: Plan,
    path: Path,
    *,
    jobs: int = 1,
    part: int = 0,
    parts: int = 1,
    on_row: Callable[[Row, int, int], None] | None = None,
) -> list[Row]:
    """Measure what is missing of a study.

    Args:
        make: what every process measures with; it is called once in each.
        plan: the grid.
        path: of the rows; those that are there are not measured again.
        jobs: processes. 1: this one.
        part: of the grid, from 0.
        parts: how many machines share it.
        on_row: called with each row, how many are there, and how many there will be.

    Returns:
        All rows of the part.

    Raises:
        ValueError: the rows that are there were made with another recipe.
    """
    rows_file.repair(path)
    rows = rows_file.read(path)
    cells = parted(cells_of(plan), part, parts)
    known = {rows_file.key(row) for row in rows}
    left = [cell for cell in cells if _key(cell) not in known]
    if rows and left:
        _require_one_recipe(rows, make(), plan, path)
    for row in _measured(make, plan, left, _chosen(rows, plan), jobs):
        rows_file.append(path, [row])
        rows.append(row)
        if on_row is not None:
            on_row(row, len(rows), len(cells))
    return rows


def _require_one_recipe(found: Sequence[Row], bench: Bench, plan: Plan, path: Path) -> None:
    for row in found:
        asked = head(bench, plan, cell_of(row), 0)["recipe"]
        other = [key for key in ("config_hash", "data_fingerprint") if row["recipe"][key] != asked[key]]
        if other:
            raise ValueError(
                f"{path} has {rows_file.name(row)} with another {other[0]}: encoder, data, numbers of the study or what this "
                "program makes of them are not those that it was begun with. Go on with those, or begin a new study."
            )


def _key(cell: Cell) -> rows_file.Key:
    return cell.method, str(cell.budget), cell.seed, cell.label_noise


class _Choice(NamedTuple):
    """What the first seed chose; None where there is nothing to choose.

    Attributes:
        rate: to learn at.
        penalty: of a logistic regression.
    """

    rate: float | None = None
    penalty: float | None = None

    @classmethod
    def of(cls, row: Row) -> "_Choice":
        """What a row was made with."""
        return cls(row.get("rate"), row.get("penalty"))


_Choices = dict[tuple[str, Any], _Choice]


def _chosen(rows: Sequence[Row], plan: Plan) -> _Choices:
    """For each method and budget."""
    return {(row["method"], row["budget"]): _Choice.of(row) for row in rows if row["seed"] == plan.pilot}


def _measured(make: Make, plan: Plan, cells: Sequence[Cell], chosen: _Choices, jobs: int) -> Iterator[Row]:
    if jobs == 1 or len(cells) < 2:
        if cells:
            _begin(make, plan, None)
        for cell in cells:
            row = _work(cell, chosen.get(cell[:2]))
            chosen.update(_chosen([row], plan))
            yield row
        _Here.desk = None
        return
    threads = max(1, machine.cores() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (make, plan, threads)) as pool:
        try:
            yield from _spread(pool, plan, list(cells), chosen, jobs)
        except BaseException:
            for process in list(pool._processes.values()):  # pyright: ignore[reportPrivateUsage]  (no public way to stop one)
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _spread(pool: ProcessPoolExecutor, plan: Plan, left: list[Cell], chosen: _Choices, jobs: int) -> Iterator[Row]:
    """A cell waits for the first seed's choice; those of one method go out together, so that a process keeps its vectors."""
    running: set[Future[Row]] = set()
    while left or running:
        ready = [cell for cell in left if cell.seed == plan.pilot or cell[:2] in chosen]
        for cell in ready[: jobs + 1 - len(running)]:
            left.remove(cell)
            running.add(pool.submit(_work, cell, chosen.get(cell[:2])))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            row = _result(future)
            chosen.update(_chosen([row], plan))
            yield row


def _result(future: Future[Row]) -> Row:
    try:
        return future.result()
    except ValueError as error:  # a mistake of the user's, told as such from this frame
        raise ValueError(str(error)) from error


def _leave_with_the_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _begin(make: Make, plan: Plan, threads: int | None) -> None:
    if threads is not None:  # a process of its own
        threading.Thread(target=_leave_with_the_parent, daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it tells it when to stop
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    bench = make()
    _Here.desk = _Desk(bench, plan, Vectors(bench, plan))


def _work(cell: Cell, choice: _Choice | None, *, hard: bool | None = None) -> Row:
    desk = _Here.desk
    assert desk is not None
    bench, plan, vectors = desk
    rate, penalty = choice or _Choice()
    method = METHODS[cell.method]
    if method.policy is None:
        row, encoder, weights = probed(vectors, cell, penalty)
        model = Classifier(encoder, Probe(weights), bench)
    else:
        reason = unsuited(bench, plan, cell.method)
        if reason is not None:
            return {**head(bench, plan, cell, 0), "na": reason}
        start = start_of(vectors, cell, penalty) if method.from_probe else None
        row, module = trained(bench, plan, cell, rate, start)
        model = Classifier(module.encoder, module.head, bench)
    hard = _asked(cell, plan) if hard is None else hard
    return {**row, "robustness": hardened(model, bench, plan)} if hard else row


def cell_of(row: Row) -> Cell:
    """What a row was measured of."""
    return Cell(row["method"], row["budget"], row["seed"], row.get("label_noise", 0.0))


def measured_again(bench: Bench, plan: Plan, before: Row) -> Row:
    """A cell by itself, with the rate or penalty that its row says, on as many threads, with robustness if the row has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(before["recipe"].get("threads", threads))
    try:
        _Here.desk = _Desk(bench, plan, Vectors(bench, plan))
        return _work(cell_of(before), _Choice.of(before), hard="robustness" in before)
    finally:
        _Here.desk = None
        torch.set_num_threads(threads)


def _asked(cell: Cell, plan: Plan) -> bool:
    """Whether robustness is measured of a cell."""
    first = cell.seed in plan.judged[: plan.hardened_seeds] and cell.budget == plan.largest and not cell.label_noise
    return first and cell.method in plan.hardened and plan.test_images > 0
