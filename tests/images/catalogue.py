"""The images: what they are made by, what they answer, and what their manifests need."""

from dataclasses import dataclass

from checks import FILE, GREETING, MEMCACHED, MOSQUITTO, PARTS, REDIS, Http, postgres
from makers import SERVER, Containerfile, Docker, Umoci


@dataclass(frozen=True)
class Image:
    """A container image, and what is asked of it."""

    name: str
    port: int
    recipe: object
    ask: object = Http()
    # What is being answered while the stop is asked for; nothing if the protocol or the
    # server has no answer that takes its time and outlives a stop.
    slow: object = Http("/slow", PARTS)
    # A request that has the workload ask the test's server outside.
    through: object = None
    egress: str = ""
    # How `image` of the manifest names it, if not as its maker writes it: skopeo copies it.
    copied_to: str = ""
    # Keys that its manifest needs beyond name, image and the ingress rule, table by table.
    needs: tuple = ()
    # Whether it ends only because it is killed, as it is everywhere.
    is_killed: bool = False
    # What the runtime configuration holds, with the certificate of the test's server.
    configuration: object = None

    @property
    def form(self):
        return self.copied_to or self.recipe.native

    def manifest(self, image):
        """The manifest, as somebody would write it who knows nothing of the image."""
        tables = {"enclave": [f'name = "{self.name}"', f'image = "{image}"'], "network": []}
        if self.egress:
            tables["network"].append(f'egress = ["{self.egress}"]')
        tables["network"].append(f"ingress = [{{ port = {self.port}, to = {self.port} }}]")
        for table, line in self.needs:
            tables.setdefault(table, []).append(line)
        return "\n".join(f"[{table}]\n" + "".join(f"{line}\n" for line in lines) for table, lines in tables.items())


# Root that changes to another user, or changes the owners of files.
AS_ROOT = ("confinement", 'profile = "container"')
BUSYBOX = "/usr/bin/busybox"

IMAGES = (
    Image("nginx", 80, Containerfile(), slow=Http("/slow", FILE), needs=(AS_ROOT,)),
    Image("nginx-unprivileged", 8080, Docker(), slow=Http("/slow", FILE)),
    Image("apache2", 80, Containerfile(), slow=Http("/slow", FILE), needs=(AS_ROOT,)),
    Image("haproxy", 8080, Containerfile(), slow=Http("/slow", None, 429), copied_to="docker-archive"),
    # Once it was asked to stop it answers nothing any more, with Docker neither.
    Image("redis", 6379, Umoci(
        packages=("redis-server",),
        config=("--config.user=redis", "--config.workingdir=/var/lib/redis", "--config.exposedports=6379/tcp",
                "--config.entrypoint=redis-server", "--config.cmd=--protected-mode", "--config.cmd=no")), REDIS, None),
    Image("memcached", 11211, Umoci(
        packages=("memcached",),
        config=("--config.entrypoint=memcached", "--config.cmd=-u", "--config.cmd=memcache",
                "--config.exposedports=11211/tcp")), MEMCACHED, None, needs=(AS_ROOT,)),
    Image("mosquitto", 1883, Umoci(
        packages=("mosquitto",), files=(("/mosquitto.conf", "mosquitto/mosquitto.conf"),),
        config=("--config.cmd=mosquitto", "--config.cmd=-c", "--config.cmd=/mosquitto.conf",
                "--config.exposedports=1883/tcp")), MOSQUITTO, None, needs=(AS_ROOT,), copied_to="oci-archive"),
    # Its fast shutdown, which its image asks for, ends queries.
    Image("postgres", 5432, Containerfile(), postgres, None, needs=(AS_ROOT,)),
    Image("gunicorn", 8000, Containerfile()),
    Image("node-axios", 3000, Containerfile(), through=Http("/greeting", GREETING), egress=f"{SERVER}:443"),
    Image("java", 8080, Containerfile()),
    Image("puma", 9292, Containerfile()),
    Image("php", 8080, Docker()),
    Image("go-static", 8080, Docker()),
    # Its response in flight waits for the server outside.
    Image("rust-static", 8080, Umoci(
        files=(("/price-oracle", "program:price-oracle"),),
        config=("--config.entrypoint=/price-oracle", "--config.user=1000:1000")),
        Http("/health", None), Http("/quote/BTC-USD", None, 502), egress=f"{SERVER}:443",
        configuration=lambda certificate: {"upstream": f"https://{SERVER}/", "ca": certificate}),
    Image("tini", 8080, Docker()),
    Image("dumb-init", 8080, Containerfile(), copied_to="oci-archive"),
    Image("s6", 8080, Containerfile(), needs=(AS_ROOT,)),
    # It has no handler for SIGTERM: it is ended when nobody is connected any more.
    Image("busybox", 8080, Umoci(
        files=(("/bin/busybox", BUSYBOX), ("/www/hello", "busybox/hello"), ("/www/cgi-bin/slow", "busybox/slow")),
        config=("--config.entrypoint=/bin/busybox", "--config.cmd=httpd", "--config.cmd=-f", "--config.cmd=-p",
                "--config.cmd=8080", "--config.cmd=-h", "--config.cmd=/www")),
        Http("/hello"), Http("/cgi-bin/slow", PARTS)),
    Image("distroless", 8080, Containerfile(), slow=Http("/slow", FILE), copied_to="oci-archive"),
    Image("ignores-sigterm", 8080, Containerfile(), slow=None, is_killed=True),
)
