"""A Ray cluster of two nodes on this machine, and a model that its actors open quickly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(scope="session")
def exported(trained_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model with one label a text."""
    folder = tmp_path_factory.mktemp("cluster") / "export"
    export(trained_of("single_label"), output=folder)
    return folder
