"""The jobs that wait, and which of them a worker gets next."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator

from .jobs import Job


class Todo:
    """Jobs by their video: a ComfyUI that has just inverted a video keeps that for its next prompt."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._by_video: OrderedDict[str, deque[Job]] = OrderedDict()
        self._count = 0
        for job in jobs:
            self._by_video.setdefault(job.video, deque()).append(job)
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._by_video.values() for job in jobs)

    def put_back(self, job: Job) -> None:
        """It is the next one."""
        self._by_video.setdefault(job.video, deque()).appendleft(job)
        self._by_video.move_to_end(job.video, last=False)
        self._count += 1

    def take(self, last: str | None, others: Collection[str]) -> Job:
        """The next job of a worker whose last video is `last`: one of the same video, else of a video that is not among
        the `others`, else any. There must be one."""
        free = (video for video in self._by_video if video not in others)
        video = last if last in self._by_video else next(free, next(iter(self._by_video)))
        jobs = self._by_video[video]
        job = jobs.popleft()
        if not jobs:
            del self._by_video[video]
        self._count -= 1
        return job
