"""The queue at work: oldest first, as many at once as each replica may have.

Owns who runs when, expiry, time-outs and the end of a job. It must never know HTTP or the disk's layout. A job that was running when the
server died runs again: at least once, as AWS's queue does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from penstock.control.asynchronous.calls import Call, Failed, Unreached
from penstock.control.asynchronous.jobs import Job, Jobs
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.errors import AwsError
from penstock.routes import Endpoint, Replica, RoutingTable, Variant

log = logging.getLogger(__name__)
LOOK_S = 0.2
THREADS = 64
MAX_QUEUED = 10_000


class Runner:
    """`table` is the routing table of now; `clock` is epoch seconds."""

    def __init__(
        self,
        jobs: Jobs,
        objects: ObjectStore,
        table: Callable[[], RoutingTable],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs, self._objects, self._table, self._clock = jobs, objects, table, clock
        self._waiting: dict[tuple[str, str, str], deque[Job]] = {}
        self._in_flight: Counter[str] = Counter()
        self._poked = asyncio.Event()
        self._threads = ThreadPoolExecutor(THREADS, "asynchronous")

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def enqueue(self, job: Job) -> None:
        self._waiting.setdefault((job.account, job.region, job.endpoint), deque()).append(job)
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._poked.clear()
                    self._look(tasks)
                    try:
                        async with asyncio.timeout(LOOK_S if self._waiting else None):
                            await self._poked.wait()
                    except TimeoutError:
                        pass
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _look(self, tasks: asyncio.TaskGroup) -> None:
        now = self._clock()
        serving = {(one.account, one.region, one.name): one for one in self._table().endpoints}
        for key, queue in list(self._waiting.items()):
            for job in [job for job in queue if job.expires <= now]:
                queue.remove(job)
                tasks.create_task(self._expire(job))
            endpoint = serving.get(key)
            while queue and endpoint and (found := self._free(endpoint, queue[0].concurrency)):
                if self._in_flight.total() >= THREADS:
                    break
                variant, replica = found
                self._in_flight[replica.id] += 1
                tasks.create_task(self._serve(queue.popleft(), replica, variant.container))
            if not queue:
                del self._waiting[key]

    def _free(self, endpoint: Endpoint, concurrency: int) -> tuple[Variant, Replica] | None:
        """The replica with the fewest of ours in flight, where it may have one more."""
        replicas = [(variant, replica) for variant in endpoint.variants for replica in variant.replicas]
        best = min(replicas, key=lambda one: self._in_flight[one[1].id], default=None)
        return best if best and self._in_flight[best[1].id] < concurrency else None

    async def _serve(self, job: Job, replica: Replica, container: str) -> None:
        call = Call(job, self._jobs, self._objects, replica, container)
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, call.run)
        try:
            async with asyncio.timeout(job.timeout_s):
                await asyncio.shield(running)
            await self._end(job)
        except TimeoutError:
            call.abort()
            await self._fail(
                job,
                call,
                f"Your invocation timed out while waiting for a response from container {container}. Review the "
                "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
            )
        except Unreached:  # nobody has seen it: its turn comes again, soon elsewhere, at the latest until it expires
            await asyncio.sleep(LOOK_S)
            self._waiting.setdefault((job.account, job.region, job.endpoint), deque()).appendleft(job)
        except Failed as error:
            await self._fail(job, call, str(error))
        except asyncio.CancelledError:
            call.abort()  # the job stays where it is: the next start runs it again
            raise
        except Exception:
            log.exception("asynchronous request %s failed", job.id)
            await self._fail(job, call, "The request processing has failed because of an unknown error.")
        finally:
            self._in_flight[replica.id] -= 1
            if not self._in_flight[replica.id]:
                del self._in_flight[replica.id]
            self._poked.set()
            running.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _expire(self, job: Job) -> None:
        call = Call(job, self._jobs, self._objects, Replica("", 0, "", 0), "")
        await self._fail(job, call, "The request expired before it could be processed.")

    async def _fail(self, job: Job, call: Call, text: str) -> None:
        log.warning("asynchronous request %s of %s failed", job.id, job.endpoint)
        try:
            await asyncio.to_thread(call.fail, text)
        except (AwsError, OSError) as error:
            log.error("the failure of asynchronous request %s can't be written: %s", job.id, error)
        await self._end(job)

    async def _end(self, job: Job) -> None:
        await asyncio.to_thread(self._jobs.remove, job)
