"""An enclave of an image: built, started, used and stopped."""

import json
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from checks import Beside, first_answer
from programs import FAILURES, Failed, command

# How long a start may take, and the end of an enclave after the grace of 10 s.
LIMITS = {"sim": (60, 60), "qemu": (300, 120)}
# What the init says when the grace is over.
KILLED = "did not stop within"


@dataclass
class Machine:
    """The programs under test, and what runs enclaves."""

    programs: Path
    kernel: Path
    qemu: Path
    vsock_device: Path

    def build(self, image, reference, folder):
        """The enclave image, and the memory that its manifest or the default gives it."""
        manifest = folder / "enclave.toml"
        manifest.write_text(image.manifest(reference))
        eif = folder / f"{image.name}.eif"
        command([self.programs / "image-builder", "build", "--manifest", manifest,
                 "--init", self.programs / "enclave-init", "--kernel", self.kernel,
                 "--output", eif, "--measurements", folder / "measurements.json"])
        return eif

    def hypervisor(self, name):
        arguments = ["--hypervisor", name]
        if name == "qemu":
            arguments += ["--qemu-binary", self.qemu, "--vhost-device-vsock", self.vsock_device]
        return arguments


class Enclave:
    """`parent-agent run`, and everything that it says."""

    def __init__(self, machine, image, eif, hypervisor, folder, arguments):
        self._machine, self._hypervisor, self._folder = machine, hypervisor, folder
        self.started = time.monotonic()
        for name in ("tmp", "left"):
            (folder / name).mkdir()
        # When the agent began to stop the enclave, as it says to service managers.
        self.stopping = None
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        threading.Thread(target=self._note, daemon=True).start()
        self._errors = open(folder / "stderr", "w+")
        self._run = subprocess.Popen(
            [machine.programs / "parent-agent", "run", eif, *machine.hypervisor(hypervisor), "--json",
             "--state-dir", folder / "state", "--publish", f"127.0.0.1:0:{image.port}", *arguments],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(folder / "tmp"),
                 "XDG_STATE_HOME": str(folder / "left"), "NOTIFY_SOCKET": str(folder / "notify")},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True, errors="replace")
        self._events, self._changed = [], threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _note(self):
        while notice := self._notices.recv(4096):
            if b"STOPPING=1" in notice.splitlines():
                self.stopping = time.monotonic()
                return

    def _read(self):
        for line in self._run.stdout:
            with self._changed:
                self._events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._events.append({"event": "end of output"})
            self._changed.notify_all()

    def event(self, wanted, limit):
        """The first event of this kind."""
        deadline = self.started + limit

        def found():
            return next((event for event in self._events if event["event"] in (wanted, "ended", "end of output")), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None, timeout=deadline - time.monotonic())
            event = found()
        if event is None or event["event"] != wanted:
            raise Failed(self.last_words(f"no event `{wanted}`"))
        return event

    def address(self, limit):
        listen = self.event("starting", limit)["ports"][0]["listen"]
        host, port = listen.rsplit(":", 1)
        return host, int(port)

    def alive(self):
        if any(event["event"] in ("ended", "workload_exited") for event in self._events):
            raise Failed(self.last_words("the workload ended"))

    def lines(self, *streams):
        """The log's lines of these streams."""
        return [event["text"] for event in self._events if event["event"] == "log" and event["stream"] in streams]

    def last_words(self, what):
        """What workload, init and agent say of a failure."""
        said = self.lines("application", "errors")[-6:]
        said += [event["detail"] for event in self._events if event["event"] == "ended"]
        if not said:
            self._errors.seek(0)
            said = [line.strip() for line in self._errors if line.strip()][-3:]
        return " / ".join([what, *said])

    def ask_to_stop(self):
        command([self._machine.programs / "parent-agent", "stop", "--state-dir", self._folder / "state"],
                limit=LIMITS[self._hypervisor][1])

    def end(self, limit):
        """Waits for the end, and gives the agent's exit code."""
        try:
            code = self._run.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(self.last_words(f"the enclave did not end within {limit} s")) from None
        self._reader.join(limit)
        return code

    def close(self):
        if self._run.poll() is None:
            self._run.terminate()
            try:
                self._run.wait(LIMITS[self._hypervisor][1])
            except subprocess.TimeoutExpired:
                self._run.kill()
                self._run.wait()
        self._notices.shutdown(socket.SHUT_RD)
        self._notices.close()
        self._errors.close()


def show(machine, image, eif, hypervisor, server, certificate):
    """Starts the image, uses it, and stops it with a response in flight. Gives the seconds
    from the start to the first answer."""
    start, stop = LIMITS[hypervisor]
    # A path of a socket has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        folder = Path(folder)
        arguments = []
        if image.egress:
            arguments += ["--connect-to", f"{image.egress}={server.address}"]
        if image.configuration:
            (folder / "configuration").write_text(json.dumps(image.configuration(certificate)))
            arguments += ["--runtime-config", folder / "configuration"]
        enclave = Enclave(machine, image, eif, hypervisor, folder, arguments)
        try:
            address = enclave.address(start)
            enclave.event("ready", start)
            try:
                first_answer(image.ask, address, start, enclave.alive)
                seconds = time.monotonic() - enclave.started
                if image.through:
                    image.through(address)
            except FAILURES as error:
                raise Failed(enclave.last_words(str(error) or type(error).__name__)) from None
            stopped(image, enclave, address, stop)
            return seconds
        finally:
            enclave.close()


def stopped(image, enclave, address, limit):
    """Stops the enclave while something is being answered."""
    in_flight = Beside("the response in flight", image.slow, address) if image.slow else None
    if in_flight:
        time.sleep(1)
        if not in_flight.is_open():
            in_flight.finished()
            raise Failed("the response in flight was over before the stop")
    stopping = Beside("the stop", enclave.ask_to_stop)
    try:
        if in_flight:
            in_flight.finished()
    except Failed as error:
        enclave.end(limit)
        raise Failed(enclave.last_words(str(error))) from None
    stopping.finished(limit)
    code = enclave.end(limit)
    if enclave.stopping is None:
        raise Failed("the agent did not say that it stops the enclave")
    if in_flight and in_flight.ended < enclave.stopping:
        raise Failed("the response in flight was over before the agent stopped the enclave")
    is_killed = [line for line in enclave.lines("errors") if KILLED in line]
    if code != 0:
        raise Failed(enclave.last_words(f"the agent ended with code {code}"))
    if is_killed and not image.is_killed:
        raise Failed(is_killed[0])
    if image.is_killed and not is_killed:
        raise Failed("it ended before its grace was over, although it ignores the signal")
