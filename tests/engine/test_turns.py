"""One engine, many clients: they take turns, and a full queue says so."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_duo.engine.worker import Job, Worker
from segment_duo.errors import EngineBusy


def order_of(clients: list[str]) -> list[str]:
    """Queue a job for each of these clients while another is running; the clients in the order in which they were served."""
    served: list[str] = []
    worker, gate, begun = Worker(limit=100), threading.Event(), threading.Event()
    worker.start()

    def first(_job: Job) -> None:
        begun.set()
        gate.wait(60)

    def for_client(client: str) -> Callable[[Job], None]:
        return lambda _job: served.append(client)

    worker.submit("auto", "", "", first, "first")
    assert begun.wait(60)
    jobs = [worker.submit("auto", "", "", for_client(client), client) for client in clients]
    told = [job.client for job in worker.waiting()]
    places = [worker.position(job) for job in jobs]
    gate.set()
    for job in jobs:
        job.future.result(60)
    assert worker.close(seconds=60)
    assert told == served
    assert sorted(places) == list(range(1, len(jobs) + 1))
    return served


def test_a_click_does_not_wait_for_a_whole_batch() -> None:
    assert order_of(["batch"] * 5 + ["click"]) == ["batch", "click", "batch", "batch", "batch", "batch"]


@settings(max_examples=25)
@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_no_client_is_served_twice_while_another_waits(clients: list[str]) -> None:
    left = {client: clients.count(client) for client in clients}
    served = order_of(clients)
    assert sorted(served) == sorted(clients)
    for before, after in itertools.pairwise(served):
        left[before] -= 1
        assert before != after or not any(count for client, count in left.items() if client != before)


def test_a_full_queue_says_who_waits_and_what_to_do() -> None:
    worker = Worker(limit=2)  # not started: nothing is taken from the queue
    for client in ("a", "b"):
        worker.submit("auto", "", "", lambda _: None, client)
    with pytest.raises(EngineBusy) as told:
        worker.submit("auto", "", "", lambda _: None, "c")
    assert "2 pieces of work of 2 clients" in told.value.message
    assert "engine status" in told.value.hint
