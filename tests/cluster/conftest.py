"""A Ray cluster of two nodes on this machine, a model that its actors open quickly, and a PostgreSQL server."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lorafit.cluster.engine import RayEngine, open_engine
from lorafit.inference.export.export import export
from lorafit.system.extras import TELEMETRY


@pytest.fixture(scope="session", autouse=True)
def _silence() -> Iterator[None]:
    """Ray reports nothing about its use, and says on its own node what goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TELEMETRY.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def start_cluster() -> Iterator[Callable[[int], Any]]:
    """Starts clusters of some nodes with one CPU each; all end with the tests."""
    from ray.cluster_utils import Cluster

    clusters = []

    def start(nodes: int) -> Cluster:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        clusters.append(cluster)
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        return cluster

    yield start
    for cluster in clusters:
        cluster.shutdown()


@pytest.fixture(scope="session")
def address(start_cluster: Callable[[int], Any]) -> str:
    """The address of a cluster of two nodes that stays as it is."""
    return f"127.0.0.1:{start_cluster(2).gcs_address.rpartition(':')[2]}"


@pytest.fixture
def engine(address: str) -> Iterator[RayEngine]:
    with open_engine(address) as opened:
        yield opened


@pytest.fixture(scope="session")
def exported(trained_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model with one label a text."""
    folder = tmp_path_factory.mktemp("cluster") / "export"
    export(trained_of("single_label"), output=folder)
    return folder


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server on this machine, with one user and one database.

    Attributes:
        folder: Its data.
        port: Where it listens, on 127.0.0.1.
    """

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """The storage that a search is given."""
        return f"postgresql://lorafit@127.0.0.1:{self.port}/trials"

    def query(self, words: str) -> list[tuple[Any, ...]]:
        """Return the rows that a query gives."""
        import psycopg

        with psycopg.connect(self.url, password=PASSWORD) as connection:
            return connection.execute(words).fetchall()


PASSWORD = "s3cret-of-the-tests"  # noqa: S105  of a server that ends with the tests


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Debian's PostgreSQL in a folder of its own; as root, it is run by the user that the package makes."""
    folder = tmp_path_factory.mktemp("postgres")
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        for parent in folder.parents:  # which pytest keeps to its user
            if parent == Path(tempfile.gettempdir()):
                break
            parent.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: object) -> None:
        before = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*before, *map(str, words)], cwd=folder, check=True, capture_output=True)

    def control(*words: object) -> None:
        call(programs / "pg_ctl", "--pgdata", folder / "data", "--wait", "--log", folder / "log", *words)

    word = folder / "word"
    word.write_text(PASSWORD)
    word.chmod(0o644)
    call(
        programs / "initdb",
        "--pgdata",
        folder / "data",
        "--username",
        "lorafit",
        "--auth=scram-sha-256",
        f"--pwfile={word}",
    )
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    control("start", "--options", options)
    try:
        import psycopg

        with psycopg.connect(
            f"postgresql://lorafit@127.0.0.1:{port}/postgres", password=PASSWORD, autocommit=True
        ) as first:
            first.execute("CREATE DATABASE trials")
        yield Server(folder, port)
    finally:
        control("stop", "--mode", "immediate")
