"""The whole of it: emulator, control plane, tasks and instances."""

import hashlib
import subprocess
import threading

from .cloud import Cloud, ControlPlane
from .instances import Instances
from .kms import Kms
from .tasks import Runner, Tasks

# On AWS the schedule is each minute.
MONITOR_INTERVAL = 5


class Local:
    """A control plane on this machine. Everything it started ends with `close`."""

    def __init__(self, folder, programs, functions, port=None, kms_port=None, workers=64):
        self._closing = []
        try:
            nsm = folder / "nsm"
            nsm.mkdir(parents=True)
            subprocess.run([programs / "enclave-documents", nsm], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, check=True)
            self.cloud = self._own(Cloud(folder, root_pem=(nsm / "root.pem").read_text(), port=port, workers=workers))
            agent = programs / "parent-agent"
            digest = hashlib.sha256(agent.read_bytes()).hexdigest()
            self.plane = ControlPlane(self.cloud, functions, agent_sha256=digest)
            self.kms = self._own(Kms(programs / "local-kms", nsm / "root.pem", folder / "kms", port=kms_port))
            self.instances = self._own(Instances(self.plane, programs, nsm, self.kms))
            self.runner = self._own(Runner(
                self.plane, programs / "terraform-runner", done=lambda task, code: self.instances.apply(task.enclave_id)))
            self.tasks = self._own(Tasks(self.plane, self.runner, workers=8))
            self._stop = threading.Event()
            self._schedule = threading.Thread(target=self._run_monitor, daemon=True)
            self._schedule.start()
        except BaseException:
            self.close()
            raise

    def _own(self, part):
        self._closing.append(part)
        return part

    def calls(self):
        """Who has called what so far; agents by the role of instances."""
        agent = self.kms.variables("enclave")["AWS_ACCESS_KEY_ID"]
        return [{**call, "principal": self.plane.role("instance") if call["principal"] == agent else call["principal"]}
                for call in self.cloud.calls()]

    def _run_monitor(self):
        while not self._stop.wait(MONITOR_INTERVAL):
            if self.cloud.is_running():
                self.plane.invoke("status-monitor", {"task": "statuses"})

    def close(self):
        if hasattr(self, "_stop"):
            self._stop.set()
            self._schedule.join()
        # The runner's processes first: the tasks wait for them.
        for part in sorted(self._closing, key=lambda part: not isinstance(part, Runner)):
            if isinstance(part, Cloud):
                continue
            part.close()
        for part in self._closing:
            if isinstance(part, Cloud):
                part.close()
