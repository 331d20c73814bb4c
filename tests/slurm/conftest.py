"""One cluster for all tests, and the stage files of a run that nothing disturbs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import RECIPE, TINY, Cluster, hashes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.getuid() != 0:
        pytest.skip("a Slurm of the test's own needs root, as slurmd starts jobs for any user")
    if not shutil.which("sbatch") and not shutil.which("apt-get"):
        pytest.skip("Slurm is not installed, and there is no apt-get to install slurm-wlm and munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as short:  # the path of a socket has at most 107 bytes
        found = Cluster(Path(short) / "cluster", tmp_path_factory.mktemp("cache"))
        try:
            found.start()
        except AssertionError as error:
            if "apt-get failed" not in str(error):
                raise
            pytest.skip(f"slurm-wlm and munge cannot be installed: {str(error)[-300:]}")
        yield found
        found.stop()


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    cluster.selfreward("run", str(TINY), *RECIPE, f"output_dir={folder}")
    return hashes(folder)


@pytest.fixture(autouse=True)
def empty_queue(cluster: Cluster) -> Iterator[None]:
    """End the jobs of a test that failed, so that the next one has its nodes."""
    yield
    cluster.run("bash", "-c", 'squeue -h -o %A | xargs -r scancel; while [ -n "$(squeue -h)" ]; do sleep 0.2; done')
