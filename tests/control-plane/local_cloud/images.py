"""Images for enclaves: a static program in an OCI image layout, built and published."""

import hashlib
import io
import json
import subprocess
import tarfile
from datetime import datetime, timezone

_PASSWD = b"app:x:1000:1000::/app:/sbin/nologin\n"
_MANIFEST = """\
[enclave]
name = "hello"
image = "oci:image"
cpus = 2
memory_mib = 256

[workload]
kind = "service"

[network]
ingress = [{ port = 8080, to = 8080 }]

[logs]
release = "always"
"""


def build(folder, programs, kernel, manifest=_MANIFEST):
    """Builds an enclave image, and gives its path and its measurements. What the manifest
    names is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _layout(folder / "image", programs / "test-workload")
    (folder / "enclave.toml").write_text(manifest)
    image, measurements = folder / "hello.eif", folder / "measurements.json"
    done = subprocess.run(
        [programs / "image-builder", "build", "--manifest", folder / "enclave.toml",
         "--init", programs / "enclave-init", "--kernel", kernel,
         "--output", image, "--measurements", measurements],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"image-builder failed: {done.stdout}")
    return image, json.loads(measurements.read_text())


def with_secret(kms, key, name):
    """The manifest with a secret of the KMS's in `NAME.kms`."""
    manifest = _MANIFEST.replace('kind = "service"\n', 'kind = "service"\naws_credentials = true\n')
    manifest = manifest.replace("[network]\n", f'[network]\negress = ["{kms.name}"]\n')
    return f"""{manifest}
[kms]
endpoint = "{kms.endpoint}"
region = "{kms.variables("enclave")["AWS_REGION"]}"
roots = "authority.pem"

[[secrets]]
name = "{name}"
kms = {{ file = "{name}.kms" }}
key_id = "{key}"
file = "/run/secrets/{name}"
"""


def with_sealed_secret(name, sender):
    """The manifest with a secret that this sender seals; the file is in the folder."""
    return f"""{_MANIFEST}
[[secrets]]
name = "{name}"
sealed = {{ sender = "{sender}" }}
file = "/run/secrets/{name}"
"""


def publish(control_plane, reference, image, measurements):
    """Uploads an image, and says what the reference stands for from now on."""
    data = image.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    bucket, key = control_plane.names["buckets"]["artifacts"], f"images/{digest}.eif"
    control_plane.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
    control_plane.cloud.client("dynamodb").put_item(TableName=control_plane.images, Item={
        "reference": {"S": reference},
        "bucket": {"S": bucket},
        "key": {"S": key},
        "sha256": {"S": digest},
        "size": {"N": str(len(data))},
        "measurements": {"S": json.dumps(measurements)},
        "published_at": {"S": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")},
    })
    return digest


def _layout(folder, program):
    """An OCI image layout (OCI Image Format, version 1) with one program."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, mode, data in (("app/", 0o755, None), (f"app/{program.name}", 0o755, program.read_bytes()),
                                 ("etc/", 0o755, None), ("etc/passwd", 0o644, _PASSWD)):
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = mode
            if data is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    def blob(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    packed = blob("layer.v1.tar", layer.getvalue())
    configuration = blob("config.v1+json", json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": [f"/app/{program.name}"], "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }).encode())
    manifest = blob("manifest.v1+json", json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": configuration, "layers": [packed],
    }).encode())
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
