"""A stage of a run and what it is handed while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar

from adaptive.core.run.atomic import to_plain
from adaptive.core.run.environment import resolve_device
from adaptive.core.run.progress import track
from adaptive.core.run.ranks import Ranks

if TYPE_CHECKING:
    from adaptive.core.run.directory import RunDir

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One step of an experiment: a function of files.

    Attributes:
        name: names its directory under ``artifacts/``.
        run: does the work; gets a :class:`StageContext`.
        needs: names of the earlier stages whose artefacts it reads.
        parallel: all processes of the run do it together (see ``StageContext.ranks``); else the
            main one does and the others wait.
        depends_on: what else its result depends on, as JSON-able values or dataclasses: its part
            of the configuration, and fingerprints of files outside the run. When this changes, the
            stage runs again.
    """

    name: str
    run: Callable[[StageContext], None]
    needs: tuple[str, ...] = ()
    depends_on: Any = None
    parallel: bool = False


@dataclass
class StageContext:
    """The world of a running stage.

    ``dir`` is private to the stage and survives kills for as long as the stage's fingerprint stays
    the same, so a long stage can write its pieces there (each atomically, with
    :func:`~adaptive.core.run.atomic_path`) and skip those that it finds. It becomes
    ``artifacts/NAME`` when the stage returns. A ``report.html`` in it is published as the run's.

    Attributes:
        name: the stage's name.
        dir: directory to write to.
        run: the run directory, for its paths; stages write to ``dir`` only.
        seed: this stage's own seed, with which Python, NumPy and torch are seeded already.
        resumed: True when ``dir`` holds what an interrupted attempt left.
        ranks: the processes that do this stage together; a stage that is not parallel is alone.
            All of them write to the same ``dir``, each its own files; what the others log, show or
            add to the summary is dropped.
        again: why the stage should run again with the next launch, where it went on without
            something that may work then; later stages have what it left meanwhile.
    """

    name: str
    dir: Path
    run: RunDir
    seed: int
    device_setting: str = "auto"
    resumed: bool = False
    needs: tuple[str, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)
    again: str = ""

    @cached_property
    def device(self) -> str:
        """The torch device to compute on, ``"auto"`` resolved; of several GPUs the rank's own."""
        return resolve_device(self.device_setting) if self.ranks.world == 1 else self.ranks.device

    def input(self, stage: str) -> Path:
        """Directory of the artefacts of an earlier stage, which must be among ``needs``."""
        # Reading an undeclared input would escape the fingerprint, so resume would go wrong.
        assert stage in self.needs, f"stage {self.name!r} reads {stage!r} but does not need it"
        return self.run.artifacts / stage

    def log(self, step: SupportsFloat | None = None, **metrics: Any) -> None:
        """Appends a record to ``metrics.jsonl``.

        Text and whole numbers are labels that tell records of the same step apart; floats are
        measurements.
        """
        if self.ranks.main:
            self.run.metrics.log(self.name, step, metrics)

    def summary(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Adds to the run's result: dotted names to numbers, strings or None.

        A resumed stage must say its whole part again: only a stage that returns is remembered.
        """
        for name, value in {**(values or {}), **more}.items():
            plain = to_plain(value)
            assert not isinstance(plain, (dict, list)), f"summary {name!r} is not a single value"
            self.results[name] = plain

    def track(
        self, iterable: Iterable[T], total: int | None = None, desc: str = "", unit: str = "it"
    ) -> Iterator[T]:
        """Yields from ``iterable`` showing count, rate and time left."""
        if not self.ranks.main:
            return iter(iterable)
        label = f"[{self.name}] {desc}".rstrip()
        return track(iterable, total, label, unit=unit)
