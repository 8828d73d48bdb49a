"""A Slurm for each file that names a port, and a folder of a user of it for each test."""

import pytest
from slurm_sites import CLUSTER, SlurmSite, started


@pytest.fixture(scope="module")
def slurm(request):
    with started(request.module.PORT) as environment:
        yield environment


@pytest.fixture
def site(tmp_path, slurm):
    return SlurmSite(tmp_path, slurm, CLUSTER)
