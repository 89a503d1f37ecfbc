"""ECS, played: each task that a workflow starts becomes a process of the real runner,
or whatever a test does in its place."""

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .rendering import REPOSITORY, TERRAFORM

POLL = 0.1


class Task:
    """A task: the environment of its container."""

    def __init__(self, arn, environment):
        self.arn = arn
        self.environment = environment
        self.enclave_id = environment["ENCLAVE_ID"]
        self.action = environment["ACTION"]
        self.token = environment["TASK_TOKEN"]


class Tasks:
    """Hands each new task of a cluster to `play`, in a thread of its own, and marks it
    as stopped when that returns."""

    def __init__(self, control_plane, play, workers=16):
        self._ecs = control_plane.cloud.client("ecs")
        self._cluster = control_plane.cluster
        self._static = control_plane.task_environment
        self._play = play
        self._seen = set()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers)
        self.errors = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:
                if self._stop.is_set():
                    return
                self.errors.append(error)
            time.sleep(POLL)

    def _look(self):
        arns = []
        for page in self._ecs.get_paginator("list_tasks").paginate(cluster=self._cluster, desiredStatus="RUNNING"):
            arns += [arn for arn in page["taskArns"] if arn not in self._seen]
        for start in range(0, len(arns), 100):
            part = arns[start:start + 100]
            for task in self._ecs.describe_tasks(cluster=self._cluster, tasks=part)["tasks"]:
                self._seen.add(task["taskArn"])
                environment = dict(self._static)
                for container in task["overrides"]["containerOverrides"]:
                    environment.update({entry["name"]: entry["value"] for entry in container["environment"]})
                self._pool.submit(self._handle, Task(task["taskArn"], environment))

    def _handle(self, task):
        try:
            self._play(task)
        except Exception as error:
            self.errors.append(error)
        finally:
            if not self._stop.is_set():
                self._ecs.stop_task(cluster=self._cluster, task=task.arn, reason="played")

    def close(self):
        self._stop.set()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)


class Runner:
    """Plays a task with the real runner, and with Terraform's core and the mock of the
    AWS provider."""

    def __init__(self, control_plane, program, done=None):
        self._control_plane = control_plane
        self._program = program
        self._folder = control_plane.cloud.folder / "tasks"
        self._folder.mkdir(exist_ok=True)
        # A short path: the sockets of Terraform's providers are below it.
        self._scratch = Path(tempfile.mkdtemp(prefix="tasks-"))
        self._count = itertools.count(1)
        self._done = done or (lambda task, code: None)
        self.processes = {}
        self._closed = False

    def __call__(self, task):
        name = f"{next(self._count):03}-{task.action}"
        scratch = self._scratch / name
        scratch.mkdir()
        environment = {
            # Where Terraform's core finds what it runs with.
            **{key: os.environ[key] for key in ("PATH", "HOME", "ENCLAVE_TOOLKIT_CACHE", "XDG_CACHE_HOME")
               if key in os.environ},
            **self._control_plane.cloud.environment(),
            # Its role, as the emulator writes it down.
            "AWS_ACCESS_KEY_ID": self._control_plane.role("runner"),
            **task.environment,
            "TERRAFORM": str(TERRAFORM),
            "STACK_DIR": str(REPOSITORY / "terraform" / "stacks" / "enclave"),
            "TMPDIR": str(scratch),
        }
        with open(self._folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([self._program], env=environment, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=subprocess.STDOUT)
            self.processes[task.enclave_id, task.action] = process
            if self._closed:
                process.terminate()
            self._done(task, process.wait())

    def log(self):
        """What the tasks have logged."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log")))

    def close(self):
        self._closed = True
        for process in list(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in list(self.processes.values()):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
