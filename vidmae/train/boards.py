"""Where the curves of a run are drawn besides metrics.jsonl: TensorBoard, and a tracker of experiments if one is asked for.

A tracker gets the numbers of each step, and the settings that are numbers, yes or no, or one of `TEXTS`. Nothing else leaves
the run folder: no names of files or data, no pictures, no code, no environment. What a tracker writes lies in RUN/tracker;
with `log.tracker_online` it is also sent to the server that the tracker is set up for. A run that comes back continues its
record. Trackers are not among the requirements; each is imported here alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from vidmae.runs.metrics import Board
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import RunConfig
from vidmae.settings.keeping_config import LogConfig
from vidmae.settings.layers import ConfigError

TEXTS = ("model.name", "model.mask", "model.target", "model.feature_loss", "data.order", "data.clip", "train.precision",
         "train.offload")
"""Settings that are words, and of which a tracker is told."""
WITHOUT = "{} {} ({}), and this job goes on without it; metrics.jsonl has all numbers"


class TensorBoard:
    """Event files in the run folder; those of later steps than `start` are taken back."""

    def __init__(self, run: RunFolder, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.tensorboard), purge_step=start + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Wandb:
    """Weights & Biases. Without a network it keeps files, which `wandb sync` sends."""

    def __init__(self, run: RunFolder, log: LogConfig, told: Mapping[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True,
                               silent=True)
        self._record = wandb.init(project=log.tracker_project, id=run.path.name, name=run.path.name, resume="allow",
                                  dir=str(run.tracker), mode="online" if log.tracker_online else "offline",
                                  config=dict(told), settings=quiet)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        self._record.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._record.finish()


class Mlflow:
    """MLflow: a file in the run folder, or the server of MLFLOW_TRACKING_URI."""

    def __init__(self, run: RunFolder, log: LogConfig, told: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # all ranks wait for the answer
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        file = f"sqlite:///{(run.tracker / 'mlflow.db').absolute()}"
        self._client = MlflowClient(_address("MLFLOW_TRACKING_URI") if log.tracker_online else file)
        known = self._client.get_experiment_by_name(log.tracker_project)
        place = known.experiment_id if known else self._client.create_experiment(log.tracker_project)
        earlier = self._client.search_runs([place], f"attributes.run_name = '{run.path.name}'", max_results=1)
        record = earlier[0] if earlier else self._client.create_run(place, run_name=run.path.name)
        self._id = record.info.run_id
        for key, value in told.items():
            if key not in record.data.params:
                self._client.log_param(self._id, key, value)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        now_ms = round(1000 * time.time())
        self._client.log_batch(self._id, metrics=[self._metric(key, value, now_ms, step) for key, value in values.items()])

    def close(self) -> None:
        """Write what is left."""
        self._client.set_terminated(self._id)


class Trackio:
    """Trackio: files in the run folder, or the space of TRACKIO_SPACE_ID."""

    def __init__(self, run: RunFolder, log: LogConfig, told: Mapping[str, Any]) -> None:
        os.environ["TRACKIO_DIR"] = str(run.tracker)
        space = _address("TRACKIO_SPACE_ID") if log.tracker_online else None
        if not log.tracker_online:  # it sends by itself where these are set
            for name in [name for name in os.environ if name.startswith("TRACKIO_") and name != "TRACKIO_DIR"]:
                del os.environ[name]
        import trackio

        self._trackio = trackio
        trackio.init(log.tracker_project, name=run.path.name, resume="allow", config=dict(told), space_id=space,
                     private=True, embed=False, auto_log_cpu=False, auto_log_gpu=False)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._trackio.finish()


def _address(variable: str) -> str:
    """Where a tracker sends to.

    Raises:
        ConfigError: Nobody said.
    """
    if not os.environ.get(variable):
        raise ConfigError(f"log.tracker_online is true, which needs {variable} in the environment of the job")
    return os.environ[variable]


TRACKERS: Mapping[str, Callable[[RunFolder, LogConfig, Mapping[str, Any]], Board]] = {
    "wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


class Careful:
    """A board that may fail: then it says so once, and training goes on without it."""

    def __init__(self, board: Board, name: str, say: Callable[[str], None]) -> None:
        self._board: Board | None = board
        self._name, self._say = name, say

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of one step."""
        self._try(lambda board: board.add(step, values))

    def close(self) -> None:
        """Write what is left."""
        self._try(lambda board: board.close())

    def _try(self, work: Callable[[Board], None]) -> None:
        if self._board is None:
            return
        try:
            work(self._board)
        except Exception as error:  # whatever a tracker raises: it must not end a run
            self._board = None
            self._say(WITHOUT.format(self._name, "failed", type(error).__name__))


def open_boards(run: RunFolder, config: RunConfig, start: int, say: Callable[[str], None]) -> list[Board]:
    """The boards that the settings ask for, on rank 0.

    Args:
        run: The run folder.
        config: Its settings.
        start: Steps that are done.
        say: Writes a line into the log.
    Raises:
        ConfigError: The library of the tracker is not installed, or nobody said where it shall send to.
    """
    boards: list[Board] = [TensorBoard(run, start)] if config.log.tensorboard else []
    name = config.log.tracker
    if name == "none":
        return boards
    make_private_folder(run.tracker)
    try:
        board = TRACKERS[name](run, config.log, public_settings(config))
    except ImportError:
        raise ConfigError(f"log.tracker is {name}, which is not installed here: pip install {name}") from None
    except ConfigError:
        raise
    except Exception as error:  # no network, no login: it must not keep a run from training
        say(WITHOUT.format(name, "did not start", type(error).__name__))
        return boards
    return [*boards, Careful(board, name, say)]


def public_settings(config: RunConfig) -> dict[str, Any]:
    """Settings that a tracker is told, under dotted names: numbers, yes or no, and the words of `TEXTS`."""
    told = dict[str, Any]()
    for section, values in asdict(config).items():
        for key, value in (values.items() if isinstance(values, dict) else [("", values)]):
            name = f"{section}.{key}" if key else section
            if isinstance(value, bool | int | float) or name in TEXTS:
                told[name] = value
    return told
