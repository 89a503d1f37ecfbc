"""AWS's SDKs, unmodified, in an enclave under `sim`: each has KMS decrypt a secret.

usage: run.py PROGRAMS KERNEL CACHE RUST

PROGRAMS is the folder of the workspace's programs, CACHE one for the SDKs, which are
downloaded once, and RUST a program with the SDK for Rust. boto3, the `aws` command and the
SDKs for JavaScript and Rust find credentials and KMS by their default chains; `enclave-kms`
is in the image because the manifest says so. The software KMS gives the plaintext to this
image alone. The same image is refused as another role, and every client says so in KMS's
words.

Exit codes: 0 all of this was shown, 1 something failed.
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "control-plane"))

from local_cloud.kms import Kms  # noqa: E402

ENCLAVE = "arn:aws:iam::000000000000:role/Enclave"
OPERATOR = "arn:aws:iam::000000000000:user/operator"
SECRET = "the secret that SDKs decrypt"
CLIENTS = ("boto3", "aws", "javascript", "rust", "enclave-kms")
LIMIT = 300
NODE = Path("/usr/bin/node")
# What of Python's library no program here needs.
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "lib2to3", "ensurepip", "config-3"}
# Of the models of AWS's services, these are needed.
MODELS = {"kms", "sts", "endpoints.json", "partitions.json", "_retry.json", "sdk-default-configuration.json"}
MANIFEST = """\
[enclave]
name = "sdks"
image = "oci:image"
cpus = 2
memory_mib = 2048

[workload]
kind = "batch"
aws_credentials = true

[network]
egress = ["{name}"]

[kms]
endpoint = "{endpoint}"
region = "{region}"
roots = "authority.pem"
command = true

[logs]
release = "always"
"""


def main():
    programs, kernel, cache, rust = map(Path, sys.argv[1:])
    python, javascript = packages(cache)
    # A path of a socket has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="sdks-") as folder:
        folder = Path(folder)
        nsm = folder / "nsm"
        nsm.mkdir()
        subprocess.run([programs / "enclave-documents", nsm], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, check=True)
        kms = Kms(programs / "local-kms", nsm / "root.pem", folder / "kms")
        try:
            operator = kms.client("operator")
            key = operator.create_key(Policy=json.dumps({
                "Version": "2012-10-17", "Statement": {
                    "Effect": "Allow", "Principal": {"AWS": OPERATOR}, "Resource": "*",
                    "Action": ["kms:Encrypt", "kms:PutKeyPolicy"]}}))["KeyMetadata"]["Arn"]
            ciphertext = operator.encrypt(KeyId=key, Plaintext=SECRET)["CiphertextBlob"]
            image = build(programs, kernel, folder, kms, {"ciphertext": ciphertext, "key": key.encode()},
                          python, javascript, rust)
            policy = subprocess.run(
                [programs / "image-builder", "kms-policy", "--measurements", folder / "measurements.json",
                 "--caller", ENCLAVE, "--administrator", OPERATOR, "--encrypter", OPERATOR],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout
            operator.put_key_policy(KeyId=key, Policy=policy)

            wanted = hashlib.sha256(SECRET.encode()).hexdigest()
            said = run(programs, image, folder, nsm, kms, "enclave")
            for client in CLIENTS:
                if f"decrypted {client} {wanted}" not in said:
                    raise SystemExit(f"{client} has not decrypted the secret:\n" + "\n".join(said))
                print(f"{client:<12} decrypted the secret")
            said = run(programs, image, folder, nsm, kms, "other")
            for client in CLIENTS:
                words = [line for line in said if line.startswith(f"failed {client} ")]
                if not any("AccessDeniedException" in line and "kms:Decrypt" in line for line in words):
                    raise SystemExit(f"{client} was not refused as another role:\n" + "\n".join(said))
                print(f"{client:<12} as another role: AccessDeniedException")
        finally:
            kms.close()


def packages(cache):
    """The folders of the SDKs for Python and for JavaScript, which are downloaded once."""
    pinned = [HERE / "requirements.txt", HERE / "workload" / "package.json", HERE / "workload" / "package-lock.json"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in pinned)).hexdigest()[:16]
    folder = cache / f"sdks-{digest}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-warn-conflicts", "--target", unfinished / "python", "--requirement", pinned[0]], check=True)
        (unfinished / "javascript").mkdir()
        for file in pinned[1:]:
            shutil.copy(file, unfinished / "javascript")
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=unfinished / "javascript", check=True)
        unfinished.rename(folder)
    return folder / "python", folder / "javascript"


def build(programs, kernel, folder, kms, files, python, javascript, rust):
    """An image with interpreters, SDKs and the workload."""
    layer = Layer()
    interpreter = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    layer.program(interpreter)
    layer.program(NODE)
    layer.file(rust, Path("/app/decrypt"))
    layer.libraries(rust)
    for path in tree(library):
        layer.file(path, path)
        if ".so" in path.name:
            layer.libraries(path)
    for path in tree(python):
        models = path.relative_to(python).parts
        if models[:2] == ("botocore", "data") and models[2] not in MODELS:
            continue
        layer.file(path, Path("/app") / path.relative_to(python))
        if ".so" in path.name:
            layer.libraries(path)
    for path in tree(javascript):
        layer.file(path, Path("/app") / path.relative_to(javascript))
    for path in (HERE / "workload").iterdir():
        if path.suffix in (".py", ".mjs"):
            layer.file(path, Path("/app") / path.name)
    for name, data in files.items():
        layer.data(Path("/app") / name, data, 0o644)
    # The SDK for Rust panics without root certificates, whatever it calls.
    layer.file(kms.authority, Path("/etc/ssl/certs/ca-certificates.crt"))
    layer.data(Path("/etc/passwd"), b"app:x:1000:1000::/tmp:/sbin/nologin\n", 0o644)
    layer.write(folder / "image", [str(interpreter), "-B", "/app/main.py"])
    shutil.copy(kms.authority, folder / "authority.pem")
    region = kms.variables("enclave")["AWS_REGION"]
    (folder / "enclave.toml").write_text(MANIFEST.format(name=kms.name, endpoint=kms.endpoint, region=region))
    subprocess.run([programs / "image-builder", "build", "--manifest", folder / "enclave.toml",
                    "--init", programs / "enclave-init", "--kernel", kernel, "--output", folder / "sdks.eif",
                    "--measurements", folder / "measurements.json"],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return folder / "sdks.eif"


def tree(folder):
    """The files in a folder, but for what is not needed."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        left_out = any(part in LEFT_OUT or part.startswith("config-3") for part in parts)
        if path.is_file() and not left_out and "site-packages" not in parts and "dist-packages" not in parts:
            yield path


class Layer:
    """A layer of a container image, and the image around it (OCI Image Format, version 1)."""

    def __init__(self):
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w")
        self._names = set()

    def file(self, source, place):
        self.data(place, source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)

    def program(self, path):
        self.file(path, path)
        self.libraries(path)

    def libraries(self, path):
        """What a program or a library loads."""
        done = subprocess.run(["ldd", path], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        for library in re.findall(r"(/\S+) \(", done.stdout):
            self.file(Path(os.path.realpath(library)), Path(library))

    def data(self, place, data, mode):
        name = str(place).lstrip("/")
        if name in self._names:
            return
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in self._names:
                self._names.add(str(parent))
                folder = tarfile.TarInfo(str(parent))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                self._tar.addfile(folder)
        self._names.add(name)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), mode
        self._tar.addfile(entry, io.BytesIO(data))

    def write(self, folder, command):
        self._tar.close()
        (folder / "blobs" / "sha256").mkdir(parents=True)

        def blob(kind, data):
            digest = hashlib.sha256(data).hexdigest()
            (folder / "blobs" / "sha256" / digest).write_bytes(data)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

        packed = blob("layer.v1.tar", self._bytes.getvalue())
        configuration = blob("config.v1+json", json.dumps({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": command, "User": "1000:1000", "Env": ["PYTHONPATH=/app", "HOME=/tmp"]},
            "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
        }).encode())
        manifest = blob("manifest.v1+json", json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": configuration, "layers": [packed],
        }).encode())
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
        (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def run(programs, image, folder, nsm, kms, who):
    """The lines that the workload prints with these credentials."""
    role = kms.variables(who)
    state = folder / f"run-{who}"
    for name in ("state", "tmp", "kept"):
        (state / name).mkdir(parents=True)
    environment = {name: role[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")}
    environment.update(TMPDIR=str(state / "tmp"), XDG_STATE_HOME=str(state / "kept"), PATH=os.environ["PATH"],
                       AWS_EC2_METADATA_DISABLED="true")
    done = subprocess.run(
        [programs / "parent-agent", "run", image, "--hypervisor", "sim", "--json", "--state-dir", state / "state",
         "--software-nsm-root", nsm, "--connect-to", f"{kms.name}={kms.address}"],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=LIMIT)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if SECRET in done.stdout or base64.b64encode(SECRET.encode()).decode() in done.stdout:
        raise SystemExit("the secret is in the log")
    if done.returncode != 0:
        raise SystemExit(f"the enclave ended with {done.returncode}: {events[-1:]}")
    return [event["text"] for event in events if event["event"] == "log" and event["stream"] == "application"]


if __name__ == "__main__":
    main()
