"""From a matrix to its jobs: the commands of the recipe's stages, with configs and folders.

<out>/warm_start.{yaml,log}     decodes and scores the model that all rows begin with
<out>/data/<name>.jsonl         RL sets (stage 4); of synthesis data/<name>/train.jsonl and tokens/
<out>/<row>/seed<N>             an ordinary experiment folder (stages 5 to 7)
<out>/<row>/seed<N>.{yaml,log}  its config in full, and the output of its commands
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import audiorl
from audiorl.config import Config, config_differences
from audiorl.config.loader import refuse_if_any
from audiorl.config.matrix import WARM_START, Experiments
from audiorl.data.speech_tokens import HISTORIES
from audiorl.data.tables import set_files
from audiorl.errors import nearest
from audiorl.runtime.stamps import Stamp
from audiorl.score.asr import POOLED
from audiorl.score.metrics import Metric, measures_of, metrics_of

MODEL_WEIGHTS = Path("model", "model.safetensors")
RL_NEEDS = ("codec", "reward_model", "judge")  # of synthesis


@dataclass(frozen=True)
class Job:
    """Commands, one after the other, that make one thing."""

    path: Path  # beginning of the names of its files: config, log and stamp
    name: str
    config: Config
    commands: tuple[tuple[str, ...], ...]  # arguments of `python -m`
    inputs: tuple[Path, ...]
    output: Path  # written last
    needs: tuple[str, ...] = ()  # names of the jobs that make inputs; first the RL set

    def file(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def stamp(self) -> Stamp:
        """Return the stamp of the job as its inputs are now."""
        named = [Path(text) for text in _texts(asdict(self.config)) if os.path.isfile(text)]
        inputs = {str(path): path for path in (*self.inputs, *named) if not path.is_dir()}
        for path in filter(Path.is_dir, self.inputs):
            inputs |= set_files(path)
        settings = {"audiorl": audiorl.__version__, "config": asdict(self.config)}
        settings["commands"] = self.commands
        return Stamp(self.file(".done.json"), settings, inputs)

    def is_done(self) -> bool:
        """Return whether the output is there and follows from the inputs as they are."""
        return self.output.exists() and self.stamp().is_current()


@dataclass(frozen=True)
class Column:
    """A number of a test set, or of several together."""

    sets: tuple[str, ...]
    metric: Metric
    title: str


@dataclass(frozen=True)
class Plan:
    """Jobs and columns of a table."""

    out: Path
    config: Config  # of the table: how everything is decoded and scored
    columns: list[Column]
    baselines: list[str]  # rows that the others are compared with
    warm_start: Job
    data: list[Job]
    rows: dict[str, dict[int, Job]]  # by row and seed

    @property
    def runs(self) -> list[Job]:
        """Return all rows seed by seed; rows that begin with another's model come last."""
        seeds = next(iter(self.rows.values()))
        runs = [jobs[seed] for seed in seeds for jobs in self.rows.values()]
        return sorted(runs, key=lambda job: len(job.needs))

    def changes(self, row: str) -> list[str]:
        """Return the keys that a row sets differently from the config of the table."""
        job = next(iter(self.rows[row].values()))
        lines = config_differences(self.config, job.config)
        return [line for line in lines if not line.startswith("seed:")]


def make_plan(experiments: Experiments, init: Path, dump: Path, out: Path) -> Plan:
    """Return the jobs of a table below `out`, on the warm start `init` and the sets in `dump`.

    Of synthesis the folders codec, reward_model and judge stand beside `init`. Raises UserError for
    columns that do not exist.
    """
    matrix = experiments.matrix
    problems: list[str] = []
    columns = list(_columns(experiments, problems))
    refuse_if_any("the matrix", problems)
    maker = _JobMaker(init, dump, out, experiments.base.speaks)
    first = next(iter(matrix.data))
    return Plan(
        out=out,
        config=experiments.base,
        columns=columns,
        baselines=[matrix.baseline, *matrix.against],
        warm_start=maker.warm_start(experiments.base),
        data=[maker.data(name, config) for name, config in experiments.data.items()],
        rows={
            row: {
                seed: maker.run(
                    row, seed, config, matrix.cells[row].data or first, matrix.cells[row].after
                )
                for seed, config in configs.items()
            }
            for row, configs in experiments.cells.items()
        },
    )


def _columns(experiments: Experiments, problems: list[str]) -> Iterator[Column]:
    config, measures = experiments.base, measures_of(experiments.base.task)
    spoken = [name for name in config.data.test if name not in config.data.no_speech]
    for entry in experiments.matrix.columns:
        where = f"{experiments.where['columns']}: columns: {entry}"
        name, _, metric = entry.partition(".")
        known = metrics_of(config, measures, name)
        if name != POOLED and name not in config.data.test:
            sets = [*config.data.test, POOLED]
            problems.append(f"{where}: {name} is not one of data.test; {nearest(name, sets)}.")
        elif metric not in known:
            problems.append(f"{where}: {name} has no `{metric}`; {nearest(metric, known)}.")
        else:
            sets = tuple(spoken) if name == POOLED else (name,)
            yield Column(sets, known[metric], f"{name} {known[metric].title}")


@dataclass(frozen=True)
class _JobMaker:
    init: Path
    dump: Path
    out: Path
    speaks: bool  # a table of synthesis

    def warm_start(self, config: Config) -> Job:
        path = self.out / WARM_START
        output = self.init / f"decode_{config.decode.name}" / "result.json"
        commands = self._decode_and_score(path, self.init)
        inputs = self._inputs(config.data.test)
        return Job(path, WARM_START, config, commands, inputs, output)

    def data(self, name: str, config: Config) -> Job:
        path = self.out / "data" / name
        output = self._rl_set(name)
        options = ("--dump", str(self.dump), "--init", str(self.init), "--out", str(output))
        data = config.data
        sets = {data.rl or data.train, data.dev, data.rl_dev or data.dev, *data.test}
        command = _stage("build_rl_data", path, *options)
        return Job(path, f"data/{name}", config, (command,), self._inputs(sets), output)

    def run(self, row: str, seed: int, config: Config, data: str, after: str) -> Job:
        path = self.out / row / f"seed{seed}"
        rl_set = self._rl_set(data)
        sets = {config.data.rl_dev or config.data.dev, *config.data.test}
        inputs = [rl_set, *self._inputs(sets)]
        needs, init = [f"data/{data}"], self.init
        if after:
            init = self.out / after / f"seed{seed}"
            inputs.append(init / MODEL_WEIGHTS)
            needs.append(f"{after}/seed{seed}")
        options = ("--data", str(rl_set), "--dump", str(self.dump), "--out", str(path))
        if self.speaks:
            options += ("--histories", str(rl_set.with_name(HISTORIES)))
            options += self._beside(*RL_NEEDS)
        train = _stage("train_rl", path, "--init", str(init), *options)
        commands = (train, *self._decode_and_score(path, path))
        output = path / f"decode_{config.decode.name}" / "result.json"
        name = f"{row}/seed{seed}"
        return Job(path, name, config, commands, tuple(inputs), output, tuple(needs))

    def _decode_and_score(self, path: Path, exp: Path) -> tuple[tuple[str, ...], ...]:
        stages = {"decode": (), "score": ()}
        if self.speaks:
            stages = {"synthesise": self._beside("codec"), "score": self._beside("judge")}
        return tuple(
            _stage(name, path, "--dump", str(self.dump), *options, str(exp))
            for name, options in stages.items()
        )

    def _rl_set(self, name: str) -> Path:
        # Of synthesis in a folder of its own, beside the speech of the warm start.
        name = f"{name}/train" if self.speaks else name
        return self.out / "data" / f"{name}.jsonl"

    def _beside(self, *names: str) -> tuple[str, ...]:
        return tuple(text for n in names for text in (f"--{n}", str(self.init.parent / n)))

    def _inputs(self, sets: set[str] | list[str]) -> tuple[Path, ...]:
        models = [self.init]
        if self.speaks:
            models += [self.init.parent / name for name in RL_NEEDS]
        weights = (model / MODEL_WEIGHTS for model in models)
        return (*weights, *(self.dump / name for name in sorted(sets)))


def _stage(name: str, path: Path, *arguments: str) -> tuple[str, ...]:
    return (f"audiorl.bin.{name}", "--config", f"{path}.yaml", *arguments)


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)
