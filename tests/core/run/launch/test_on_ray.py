from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from adaptive.core.errors import UserError
from adaptive.core.run.launch import RayConfig, on_ray
from adaptive.core.run.launch.job import Job


@dataclass(eq=False)
class Reference:
    """To the result of a task."""

    function: Callable[[Job], int]
    job: Job


class FakeRay(SimpleNamespace):
    """What the launcher uses of Ray, with one node; tasks run when they are waited for."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, gpus: float = 2, lost: str = "", up: bool = True):
        super().__init__(gpus=gpus, lost=lost, up=up, told=[], open=False)

    def init(self, **settings):
        self.told.append(settings)
        if not self.up:
            raise ConnectionError("Could not find any running Ray instance.\nMore.")
        self.open = True

    def nodes(self):
        return [{"Alive": True, "Resources": {"GPU": self.gpus, "CPU": 8.0}}]

    def remote(self, **options):
        self.told.append(options)
        return lambda function: SimpleNamespace(remote=lambda job: Reference(function, job))

    def wait(self, references, num_returns):
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference):
        if reference.job.directory == self.lost:
            raise self.exceptions.RayError("The node died.\nMore.")
        return reference.function(reference.job)

    def shutdown(self):
        self.open = False


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    commands = [(sys.executable, "-c", f"exit({status})") for status in (0, 3)]
    made = [Job(f"run{i}", c, str(tmp_path)) for i, c in enumerate(commands)]
    for job in made:
        job.path.mkdir()
    return made


@pytest.fixture
def ray(monkeypatch):
    def use(**settings) -> FakeRay:
        fake = FakeRay(**settings)
        monkeypatch.setitem(sys.modules, "ray", fake)
        return fake

    return use


def test_ray_is_told_what_a_run_needs():
    assert on_ray.options(RayConfig(gpus=0.5, cpus=4, memory_gb=2, env_vars={"A": "b"})) == {
        "num_gpus": 0.5,
        "num_cpus": 4,
        "memory": 2 * 2**30,
        "max_retries": 3,
        "runtime_env": {"env_vars": {"A": "b"}},
    }
    assert "memory" not in on_ray.options(RayConfig())


def test_every_run_is_a_task(ray, jobs):
    fake = ray()
    settings = RayConfig(address="ray://head:10001")
    ended = {job.directory: status for job, status in on_ray.launch(jobs, settings)}
    assert ended == {"run0": 0, "run1": 3}
    assert fake.told[0]["address"] == "ray://head:10001" and fake.told[1]["num_gpus"] == 1
    assert not fake.open


def test_a_run_that_ray_loses_says_so(ray, jobs):
    ray(lost="run0")
    ended = {job.directory: status for job, status in on_ray.launch(jobs, RayConfig())}
    assert ended == {"run0": 1, "run1": 3}
    assert jobs[0].why(1) == "Ray lost the run: The node died."


@pytest.mark.parametrize(
    ("cluster", "settings", "words"),
    [
        ({"up": False}, {}, "address=auto: no Ray cluster answers there"),
        ({"gpus": 1}, {"gpus": 2}, "gpus=2 and cpus=1: no node of the cluster has that"),
    ],
)
def test_a_cluster_that_cannot_do_it_is_told_in_a_sentence(ray, jobs, cluster, settings, words):
    fake = ray(**cluster)
    with pytest.raises(UserError, match=words):
        next(on_ray.launch(jobs, RayConfig(**settings)))
    assert not fake.open


def test_without_ray_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[ray\]'"):
        next(on_ray.launch([], RayConfig()))


@pytest.mark.slow
def test_the_real_ray_runs_them(jobs):
    pytest.importorskip("ray")
    settings = RayConfig(address=None, gpus=0)
    ended = {job.directory: status for job, status in on_ray.launch(jobs, settings)}
    assert ended == {"run0": 0, "run1": 3}
