"""Which job a worker gets next."""

from __future__ import annotations

from comfyui_stem.batch.jobs import Job
from comfyui_stem.batch.todo import Todo
from hypothesis import given
from hypothesis import strategies as st


def jobs_of(videos):
    return [Job(f"job{number}", video) for number, video in enumerate(videos)]


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_job_is_taken_once_and_a_worker_leaves_a_video_only_when_nothing_of_it_waits(videos, workers, random):
    todo, last, taken = Todo(jobs_of(videos)), dict.fromkeys(range(workers)), []
    while len(todo):
        worker = random.randrange(workers)
        waiting = {job.video for job in todo}
        others = {video for other, video in last.items() if other != worker and video}
        job = todo.take(last[worker], others)
        taken.append(job.id)
        if job.video != last[worker]:
            assert last[worker] not in waiting
            assert job.video not in others or waiting <= others
        last[worker] = job.video
    assert sorted(taken) == sorted(job.id for job in jobs_of(videos))


def test_without_anybody_else_jobs_are_taken_in_their_order_and_what_is_put_back_is_the_next():
    todo = Todo(jobs_of("abcb"))
    assert [job.id for job in todo] == ["job0", "job1", "job3", "job2"] and len(todo) == 4
    first = todo.take(None, ())
    todo.put_back(first)
    assert [job.id for job in todo] == ["job0", "job1", "job3", "job2"] and len(todo) == 4
    assert todo.take("c", ()).id == "job2"
    assert todo.take("c", {"a"}).id == "job1"
