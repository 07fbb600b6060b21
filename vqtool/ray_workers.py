"""Workers that are actors of Ray (the extra `ray`): on a running cluster, or on a Ray of this machine alone.

Every node needs vqtool and Ray of the same versions, and sees the inputs under the same names; outputs are written by
the process that asked.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqtool.errors import UsageError, counted
from vqtool.workers import PATIENCE, Died, Workers


class RayActors(Workers["_Actor"]):
    """Actors of `threads` CPUs each in the cluster that RAY_ADDRESS names, else in a local Ray.

    There are `count` of them, or as many as there is room for.
    Ray asks everyone who connects for a token, unless RAY_AUTH_MODE says otherwise: its servers listen on all network
    addresses of a machine, a local Ray's too. A local one has a token of its own where there is none. `say` is told.
    """

    def __init__(
        self,
        count: int | None,
        threads: int | None = None,
        *,
        device: str = "cpu",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.threads = threads or 1
        self._gpus = 1 if device.startswith("cuda") else 0
        self._ray = _connected(None if count is None else count * self.threads)
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        room = sum(map(self._room, nodes))
        if room == 0:
            needs = f"{self.threads} CPUs" + " and a GPU" * self._gpus
            raise UsageError(f"no node of Ray has {needs}, which an actor takes; give fewer --threads")
        # No more than there is room for: the others would wait for it with a part that nobody else makes.
        super().__init__(min(count or room, room), say)
        self._work: Any = None
        auth = "token" if os.environ.get("RAY_AUTH_MODE") == "token" else "NO"
        where = ", ".join(sorted({node["NodeManagerAddress"] for node in nodes}))
        say(
            f"{counted(self.count, 'actors')} of Ray on {where}: "
            f"it listens on all network addresses, with {auth} authentication"
        )

    def _room(self, node: dict[str, Any]) -> int:
        """How many actors a node takes."""
        room = int(node["Resources"].get("CPU", 0)) // self.threads
        return min(room, int(node["Resources"].get("GPU", 0))) if self._gpus else room

    def _start(self, work: Callable[[Any], Any]) -> _Actor:
        if self._work is None:
            self._work = self._ray.put(work)
        maker = self._ray.remote(_Maker).options(num_cpus=self.threads, num_gpus=self._gpus, max_restarts=0)
        return _Actor(maker.remote([self._work]))

    def _give(self, worker: _Actor, task: Any) -> None:
        worker.made = worker.actor.make.remote(task)

    def _finished(self, workers: list[_Actor]) -> list[_Actor]:
        ready, _ = self._ray.wait([worker.made for worker in workers], timeout=PATIENCE)
        return [worker for worker in workers if worker.made in ready]

    def _take(self, worker: _Actor) -> Any:
        from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, OutOfMemoryError

        try:
            return self._ray.get(worker.made)
        except (ActorDiedError, ActorUnavailableError, ObjectLostError, OutOfMemoryError) as error:
            self._ray.kill(worker.actor)
            return Died(type(error).__name__)

    def _stop(self, workers: list[_Actor]) -> None:
        self._ray.shutdown()


class _Actor:
    """An actor, and what it will have made."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.made = actor, None


class _Maker:
    """What an actor does; exceptions are returned, so that they come as they are."""

    def __init__(self, work: list[Any]) -> None:
        self._reference, self._work = work[0], None

    def make(self, task: Any) -> Any:
        """work(task), or the exception that it raised."""
        import ray

        try:
            if self._work is None:
                self._work = ray.get(self._reference)
            assert self._work is not None
            return self._work(task)
        except Exception as error:
            return error


def _connected(cpus: int | None) -> Any:
    """The module ray, connected; UsageError where it is missing or there is nothing to connect to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    address = os.environ.get("RAY_ADDRESS")
    if "ray" not in sys.modules:  # which reads these once; Ray itself asks for a token by default from 2.60 on
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        known = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
        if not address and not known and not (Path.home() / ".ray" / "auth_token").exists():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray; install it with: pip install 'vqtool[ray]'") from error
    handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = f"Ray at {address or 'this machine'} cannot be used ({str(error).splitlines()[0]})"
        raise UsageError(f"{what}; look at RAY_ADDRESS, and at the token: ray get-auth-token") from error
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray
