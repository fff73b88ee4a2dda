"""Who can reach what runs: its ports, sockets, keys, files, arguments, and the folder it was started in."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.config.site import LaptopSite

pytestmark = [pytest.mark.slow, pytest.mark.integration]

START_s = 60
TOKEN = "geheim-7f3a91"
METHODS = {"train": os.getcwd, "calculate": os.getenv}
# ZMTP 3: a signature of 10 bytes, 2 of version, then the name of the mechanism in 20.
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


class Running:
    """A task server, started in somebody else's folder, with no umask and a token in the environment."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.queues = LocalQueues(METHODS)
        self.server = start_server(METHODS, self.queues, make_site(LaptopSite(n_workers=2)), run_dir)

    def ask(self, kind, *args):
        self.queues.send_inputs(*args, method=kind, topic=kind)
        result = self.queues.get_result(kind, timeout=START_s)
        assert result.success, result.failure_info
        return result.value

    def family(self):
        server = psutil.Process(self.server.pid)
        return [server, *server.children(recursive=True)]

    def ports(self):
        """Return address and port of all that listens."""
        connections = [c for process in self.family() for c in process.net_connections("inet")]
        return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}

    def worker_port(self):
        (port,) = {
            int(argument.removeprefix("--port="))
            for process in self.family()
            for argument in process.cmdline()
            if argument.startswith("--port=")
        }
        return port

    def stop(self):
        stop_server(self.server, self.queues, 10)
        self.queues.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder whose files have the names of modules, and make a folder when they are executed."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("parsl", "fff", "zmq", "numpy", "sitecustomize", "usercustomize", "encodings", "os"):
        (folder / f"{name}.py").write_text(f"import posix\nposix.mkdir({str(folder / 'it-exploded')!r})\n")
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory, hostile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFF_TEST_TOKEN", TOKEN)
        patch.chdir(hostile)
        umask = os.umask(0)
        try:
            server = Running(tmp_path_factory.mktemp("run"))
            server.ask("train")  # all of it is up when a worker has answered
        finally:
            os.umask(umask)
        yield server
        server.stop()


def mechanism(address):
    """Return what a port wants of whoever connects to it."""
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(SIGNATURE + b"\3")
        greeting = b""
        while len(greeting) < 32 and (data := connection.recv(64)):
            greeting += data
    assert greeting.startswith(SIGNATURE[:1])
    return greeting[12:32].rstrip(b"\0")


def test_all_ports_are_on_the_loopback_and_want_a_key(running):
    ports = running.ports()

    assert len(ports) >= 4
    for ip, port in ports:
        assert ip.removeprefix("::ffff:") == "127.0.0.1"
        assert mechanism(("127.0.0.1", port)) == b"CURVE"


def test_only_who_has_the_key_of_the_run_is_let_in_as_a_worker(running):
    (folder,) = running.run_dir.glob("parsl/*/shared/certificates")
    server_key, _ = zmq.auth.load_certificate(folder / "server.key")
    own = zmq.auth.load_certificate(folder / "client.key_secret")

    assert shake_hands(running.worker_port(), server_key, *zmq.curve_keypair()) == "refused"
    assert shake_hands(running.worker_port(), server_key, *own) == "let in"


def shake_hands(port, server_key, public, secret):
    ends = {
        zmq.EVENT_HANDSHAKE_SUCCEEDED: "let in",
        zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused",
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "refused",
    }
    context = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.curve_publickey, dealer.curve_secretkey, dealer.curve_serverkey = public, secret, server_key
        monitor = dealer.get_monitor_socket()
        dealer.connect(f"tcp://127.0.0.1:{port}")
        while monitor.poll(10_000):
            event = recv_monitor_message(monitor)["event"]
            if event in ends:
                return ends[event]
        return "no answer"
    finally:
        context.destroy(linger=0)


def test_sockets_with_a_name_lie_in_folders_of_the_users_alone(running):
    names = {c.laddr for process in running.family() for c in process.net_connections("unix") if c.laddr}

    for name in names:
        assert not name.startswith("@")
        assert stat.S_IMODE(Path(name).parent.stat().st_mode) == 0o700


def test_the_queue_to_the_steering_process_has_no_name(running):
    for end in (running.queues._client, running.queues._server):
        assert end._socket.fileno() == -1 or not end._socket.getsockname()


def test_the_keys_lie_where_nobody_else_can_look_though_the_umask_forbids_nothing(running):
    keys = list(running.run_dir.rglob("*.key_secret"))

    assert len(keys) == 2
    for key in keys:
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((running.run_dir / "parsl").stat().st_mode) == 0o700


def test_the_environment_reaches_workers_and_nothing_that_others_see(running):
    assert running.ask("calculate", "FFF_TEST_TOKEN") == TOKEN

    for process in running.family():
        assert TOKEN not in " ".join(process.cmdline())
    for path in running.run_dir.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()


def test_no_secret_key_is_an_argument(running):
    secrets = [zmq.auth.load_certificate(path)[1].decode() for path in running.run_dir.rglob("*.key_secret")]
    arguments = " ".join(argument for process in running.family() for argument in process.cmdline())

    assert len(secrets) == 2
    assert not any(secret in arguments for secret in secrets)


def test_the_folder_it_was_started_in_provides_neither_modules_nor_libraries(running, hostile):
    assert running.ask("train") == "/"
    assert not (hostile / "it-exploded").exists()
