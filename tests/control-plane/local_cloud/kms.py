"""The KMS in software, which gives secrets to the enclaves of this machine. The emulator's
evaluates no documents."""

import subprocess

import boto3


class Kms:
    """`local-kms` as a process. It ends with `close`."""

    def __init__(self, program, nsm_root, folder, port=None):
        folder.mkdir(parents=True)
        self.folder = folder
        self._log = open(folder / "kms.log", "wb")
        self._process = subprocess.Popen(
            [program, "--listen", f"127.0.0.1:{port or 0}", "--nsm-root", nsm_root, "--folder", folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self.close()
            raise RuntimeError(f"the KMS does not listen; its log is {self._log.name}")

    @property
    def name(self):
        """What images call it in `egress`: `localhost:PORT`."""
        return self.endpoint.removeprefix("https://")

    @property
    def address(self):
        return self.name.replace("localhost", "127.0.0.1")

    @property
    def authority(self):
        """The file with the root of its certificate."""
        return self.folder / "authority.pem"

    def variables(self, who):
        """The credentials of `enclave`, `other` or `operator`, and its region."""
        lines = (self.folder / f"{who}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def client(self, who):
        variables = self.variables(who)
        return boto3.client(
            "kms", endpoint_url=self.endpoint, verify=str(self.authority), region_name=variables["AWS_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"])

    def close(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._log.close()
