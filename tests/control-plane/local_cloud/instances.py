"""EC2, simulated: what Terraform's mock claims to have made is made on the emulator, and
each running instance is an agent whose enclave `sim` runs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

POLL = 0.2
# How long an agent has to end its enclave.
END = 60


class Agent:
    """An instance's agent."""

    def __init__(self, program, parameter, folder, environment, nsm_root, options):
        folder.mkdir(parents=True)
        for name in ("state", "tmp", "kept"):
            (folder / name).mkdir()
        self.folder = folder
        self.parameter = parameter
        self.address = None
        self._log = open(folder / "agent.log", "wb")
        self._process = subprocess.Popen(
            [program, "run", "--config", f"ssm:{parameter}", "--hypervisor", "sim", "--json",
             "--state-dir", folder / "state", "--image-dir", folder / "images",
             "--software-nsm-root", nsm_root,
             # The configuration's ports are an instance's; here many share one host.
             "--publish", "127.0.0.1:0:8080", *options],
            env={**environment, "TMPDIR": str(folder / "tmp"), "XDG_STATE_HOME": str(folder / "kept"),
                 "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, text=True, errors="replace")
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line)
            with contextlib.suppress(ValueError, KeyError, IndexError):
                event = json.loads(line)
                if event["event"] == "starting":
                    self.address = event["ports"][0]["listen"]

    def close(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(END)
        self._log.close()


class Instances:
    """Follows Terraform's states and EC2's instances."""

    def __init__(self, control_plane, programs, nsm_root, kms):
        self._plane = control_plane
        self._programs = programs
        self._nsm_root = nsm_root
        self._kms = kms
        self._folder = control_plane.cloud.folder / "instances"
        self._ec2 = control_plane.cloud.client("ec2")
        self.agents = {}
        self._count = 0
        self._lock = threading.Lock()
        self.errors = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def apply(self, enclave_id):
        """Makes on the emulator what an enclave's state says, and removes what it does
        not say any more."""
        from .rendering import Rendering

        ssm, logs = self._plane.cloud.client("ssm"), self._plane.cloud.client("logs")
        state = Rendering.of_state(self._plane.state(enclave_id))
        parameters = state.all("aws_ssm_parameter")
        for parameter in parameters:
            ssm.put_parameter(Name=parameter["name"], Value=parameter["value"], Type="String", Overwrite=True)
        for group in state.all("aws_cloudwatch_log_group"):
            with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                logs.create_log_group(logGroupName=group["name"])
        wanted = {instance["id"] for instance in state.all("aws_instance")}
        there = {instance["InstanceId"] for instance in self._described(enclave_id)}
        for identifier in wanted - there:
            self._ec2.run_instances(
                ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1, ClientToken=identifier,
                TagSpecifications=[{"ResourceType": "instance", "Tags": [
                    {"Key": "EnclaveId", "Value": enclave_id},
                    {"Key": "Project", "Value": self._plane.task_environment["PROJECT_NAME"]},
                    {"Key": "Environment", "Value": self._plane.task_environment["ENVIRONMENT"]},
                    {"Key": "local:parameter", "Value": parameters[0]["name"]},
                ]}])
        if there - wanted:
            self._ec2.terminate_instances(InstanceIds=list(there - wanted))
            self.look()
        if not parameters:
            name = f"/{self._plane.task_environment['PROJECT_NAME']}/{self._plane.task_environment['ENVIRONMENT']}"
            with contextlib.suppress(ssm.exceptions.ParameterNotFound):
                ssm.delete_parameter(Name=f"{name}/enclaves/{enclave_id}")
            with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
                logs.delete_log_group(logGroupName=f"/aws/ec2/enclave/{enclave_id}")

    def _described(self, enclave_id=None):
        filters = [{"Name": "tag:EnclaveId", "Values": [enclave_id]}] if enclave_id else []
        answer = self._ec2.describe_instances(Filters=filters)
        instances = [i for r in answer["Reservations"] for i in r["Instances"]]
        return [i for i in instances if i["State"]["Name"] not in ("terminated", "shutting-down")]

    def _run(self):
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as error:
                if not self._stop.is_set():
                    self.errors.append(error)
            time.sleep(POLL)

    def look(self):
        """Starts agents of running instances, and ends those of others."""
        with self._lock:
            running = {}
            for instance in self._described():
                tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
                if "local:parameter" in tags and instance["State"]["Name"] == "running":
                    running[tags["EnclaveId"]] = tags["local:parameter"]
            for enclave_id in set(self.agents) - set(running):
                self.agents.pop(enclave_id).close()
            for enclave_id in set(running) - set(self.agents):
                if self._stop.is_set():
                    return
                self._count += 1
                self.agents[enclave_id] = Agent(
                    self._programs / "parent-agent", running[enclave_id], self._folder / f"{self._count}",
                    self._environment(), self._nsm_root, self._options(running[enclave_id]))

    def _environment(self):
        """An instance's, whose role is the one that the KMS knows."""
        role = self._kms.variables("enclave")
        return {**self._plane.cloud.environment(),
                **{name: role[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}}

    def _options(self, parameter):
        """Leads an image that names the KMS to it: agents refuse this for others."""
        answer = self._plane.cloud.client("ssm").get_parameter(Name=parameter)
        bucket, key = re.search(r"s3://([^/\"]+)/([^\"]+)", answer["Parameter"]["Value"]).groups()
        with tempfile.NamedTemporaryFile(suffix=".eif") as image:
            self._plane.cloud.client("s3").download_fileobj(bucket, key, image)
            image.flush()
            done = subprocess.run([self._programs / "image-builder", "describe", "--json", image.name],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        host = json.loads(done.stdout)["Metadata"]["CustomMetadata"]["Host"]
        if self._kms.name not in host.get("egress", []):
            return []
        return ["--connect-to", f"{self._kms.name}={self._kms.address}"]

    def close(self):
        self._stop.set()
        self._thread.join()
        with self._lock:
            for agent in self.agents.values():
                agent.close()
            self.agents = {}
