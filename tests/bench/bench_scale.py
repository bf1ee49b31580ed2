"""1,024 ranks as threads: the real start, steps, saves, roll-back and records of a run without a model, decoders and a network.

What runs is `vidmae.ranks.program.run_program` with `vidmae.train.pretrain.train`. Stood in for are torch.distributed
(tests/bench/peers/simulated_ranks.py says how its cost is counted), the engine, which has no weights, and the reader, which fills
no clip and cannot read two videos of the second step. The fifth step is not finite: all ranks go back to the checkpoint of
step 3. Every file is one that a real run would read or write; of the shards each has 64 bytes.

    python tests/bench/run.py scale

prints, for 8 to 1,024 ranks, what grows and how: the exponent of the number of ranks between 64 and 1,024.
"""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

from tests.bench.peers import simulated_ranks
from tests.bench.peers.simulated_ranks import Account, Distributed, counted_files, enter, exponent, run_ranks_as_threads
from vidmae.clips.order import ShuffledVideos
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.ranks import dist, preempt, program, watchdog
from vidmae.ranks.engine import TAG, NonFiniteError
from vidmae.runs.metrics import read_metrics
from vidmae.runs.quarantine import read_quarantine
from vidmae.runs.record import RunFolder, make_private_folder, read_json
from vidmae.settings.config import PretrainConfig, find_recipe
from vidmae.settings.layers import build, parse_set, read_yaml, to_yaml
from vidmae.train import pretrain, trainer

SIZES = (8, 64, 256, 1024)
PER_NODE = 8
STEPS, EVERY, BAD_STEP, NOT_FINITE = 6, 3, 2, 5
VIDEOS = 60_000  # so many that a manifest is mapped and not read by each rank
PHASES = ("start", "step", "step with replaced videos", "save", "step that is not finite", "start from a checkpoint")
MOST_ROUNDS = 400  # of a start of 1,024 ranks; an all-gather of objects alone has 2,046


def results() -> Iterator[dict[str, Any]]:
    """The table, and its numbers at 1,024 ranks against limits."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_videos(Path(folder, "s.csv"), VIDEOS)
        accounts, seconds = {}, {}
        for size in SIZES:
            began = time.process_time()
            accounts[size] = simulate(Path(folder, f"run-{size}"), manifest, size)
            seconds[size] = time.process_time() - began
    show(accounts, seconds)
    last = accounts[SIZES[-1]]
    for phase in PHASES:
        rounds = last.of(phase, 0, "rounds")
        yield {"name": f"scale_{phase.replace(' ', '_')}", "unit": f"rounds of messages, {SIZES[-1]:,} ranks", "rounds": 1,
               "target": 1.0, "ours": rounds, "peer": MOST_ROUNDS, "ratio": MOST_ROUNDS / max(1, rounds),
               "of_rank_0": {what: last.of(phase, 0, what) for what in ("sent_bytes", "looks", "opens", "files", "changes")},
               "of_all": {what: last.all(phase, what) for what in ("looks", "opens", "files", "changes")}}


def write_videos(path: Path, videos: int) -> Path:
    """A manifest of videos that nobody will open."""
    rows = [Row(f"/v/{i:06d}.mp4", "", 300, 30.0, 10.0, 1000, 64, 48, "h264", 0, 0, 0, f"{i:016x}", 1, "decord")
            for i in range(videos)]
    write_manifest(path, rows, [], Check("decord", True))
    return path


def settings(manifest: Path, world_size: int) -> PretrainConfig:
    """Of the run: a clip for each rank and step. Nodes check themselves in a job; here all ranks are on one."""
    given = ["recovery.checks=off", "recovery.compare_steps=0", "model.name=mae_vit_nano_patch16", "model.img_size=32", "model.num_frames=4", "model.pred_t_dim=4",
             "model.decoder_embed_dim=48", "model.decoder_depth=1", "model.mask_ratio=0.75", "data.sampling_rate=2", "data.repeat_aug=1",
             "data.workers=0", "data.recheck_pct=0", "data.max_bad_pct=50", f"train.global_batch={world_size}",
             "train.micro_batch=1", "train.precision=fp32", "train.device=cpu", "train.threads=0", "log.tensorboard=false", "log.picture=false",
             f"train.phases=[{{duration: {STEPS} steps, lr: 1.0e-3}}]", f"checkpoint.every_steps={EVERY}", f"data.manifest={manifest}"]
    return build(PretrainConfig, [read_yaml(find_recipe("demo")), *parse_set(given)])[0]


def simulate(path: Path, manifest: Path, world_size: int) -> Account:
    """Train a run of so many ranks to its end; what they did."""
    run, account = RunFolder(make_private_folder(path)), Account()
    config = settings(manifest, world_size)
    run.config.write_text(to_yaml(config))
    distributed = Distributed(world_size, account)
    order = ShuffledVideos(VIDEOS if manifest.name == "s.csv" else sum(1 for _ in manifest.open()) - 1, 1, config.seed)
    broken = {order.place((BAD_STEP - 1) * world_size + i).row for i in (0, world_size - 1)}
    codes: list[int] = [-1] * world_size

    def act(rank: int) -> None:
        codes[rank] = program.run_program(str(path), PretrainConfig, pretrain.train)

    with stood_in(world_size, broken, distributed), counted_files(account):
        run_ranks_as_threads(world_size, act, distributed)
    assert codes == [0] * world_size, f"exit codes {set(codes)}: {read_json(run.failure)}"
    assert [m["step"] for m in read_metrics(run)] == [*range(1, STEPS + 1)]
    assert {s.row for _, s in read_quarantine(run)} == broken and len(read_json(run.result) or {}) > 5
    return account


@contextlib.contextmanager
def stood_in(world_size: int, broken: set[int], distributed: Distributed) -> Iterator[None]:
    """While it is entered, a thread can be a rank."""
    def init(_: str) -> dist.Ranks:
        rank = simulated_ranks.rank_here()
        return dist.Ranks(rank, world_size, rank % PER_NODE, torch.device("cpu"))

    def fail(_: RunFolder, error: Exception, __: Any) -> None:
        raise error

    patches: list[tuple[Any, str, Any]] = [
        (dist, "torch_dist", distributed), (dist, "init", init), (dist, "close", lambda: None), (program, "_record_failure", fail),
        (watchdog, "expect_within", lambda _: None), (preempt, "listen", lambda _: None), (trainer, "Engine", _Engine),
        (trainer, "peak_flops", lambda *_: None), (pretrain, "Pretrainer", _Pretrainer), (trainer, "say", lambda *_: None),
        (program, "say", lambda *_: None), (trainer.gc, "collect", lambda: 0),
        (trainer.checkpoint, "Background", _in_this_thread()),
        (torch, "set_num_threads", lambda _: None), (pretrain.Pretrainer, "export", lambda _: None)]
    with contextlib.ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch("vidmae.clips.loader.Reader", lambda *_, **more: _Reader(broken, more["unreadable"])))
        stack.enter_context(mock.patch("vidmae.runs.metrics.print", lambda *_, **__: None, create=True))
        yield


def _in_this_thread() -> type[Any]:
    """A stage of a save that is over when it has begun, so that it belongs to its phase."""
    class Stage(trainer.checkpoint.Background):  # type: ignore[name-defined,misc]
        def __init__(self, act: Any) -> None:
            self.result, self.problem, self._act = None, None, act
            self._thread = SimpleNamespace(is_alive=lambda: False, join=lambda: None)
            self._run()

    return Stage


class _Reader:
    """Fills no clip."""

    def __init__(self, broken: set[int], unreadable: Any) -> None:
        self._broken, self._unreadable = broken, dict(unreadable)

    def read(self, row: int, *_: Any) -> str | None:
        return self._unreadable.get(row) or ("it is empty" if row in self._broken else None)


class _Engine:
    """Has no weights; its step is the one collective of `Engine.update`, its checkpoint a file for each rank and one for all."""

    skipped_steps, checkpoint_bytes = 0, 1 << 20

    def __init__(self, _: Any, __: Any, ___: Any, ranks: dist.Ranks, **____: Any) -> None:
        self._ranks, self.at, self.losses = ranks, 0, torch.ones(1, dtype=torch.float64)
        self.module = torch.nn.Identity()

    def set_lr(self, _: float) -> None:
        """Of nobody."""

    def backward(self, *_: Any) -> None:
        """Of nobody."""

    def update(self, *, extra: list[float], watched: Any) -> tuple[float, float, list[float]]:  # noqa: ARG002
        sums = self._ranks.sum_tensor(torch.tensor([1.0, *extra], dtype=torch.float64)).tolist()
        if self.not_finite:
            raise NonFiniteError("loss is nan")
        return 1.0, 1.0, [value / self._ranks.world_size for value in sums[1:]]

    def shards(self, *, copied: bool) -> dict[str, Any]:  # noqa: ARG002
        own = {f"{TAG}/zero_pp_rank_{self._ranks.rank}_mp_rank_00_optim_states.pt": bytes(64)}
        return own | ({f"{TAG}/mp_rank_00_model_states.pt": bytes(64)} if self._ranks.is_main else {})

    def load(self, folder: Path) -> None:
        for name in (f"zero_pp_rank_{self._ranks.rank}_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"):
            assert len((folder / TAG / name).read_bytes()) == 64


class _Pretrainer(pretrain.Pretrainer):
    """The real one, which says where one phase ends and the next begins."""

    def __init__(self, run: RunFolder, *args: Any) -> None:
        if simulated_ranks.phase_here() != "start":  # it goes back
            enter("start from a checkpoint")
        super().__init__(run, *args)

    def build(self) -> Any:
        self.spreads = []
        return torch.nn.Identity(), []

    def inputs(self, batch: Any, position: int) -> tuple[Any, ...]:  # noqa: ARG002
        return ()

    def train_step(self, step: int) -> Any:
        done, not_finite = step + 1, step + 1 == NOT_FINITE and not self.skipped
        self.engine.not_finite = not_finite  # type: ignore[attr-defined]
        enter("step that is not finite" if not_finite else "step with replaced videos" if done == BAD_STEP else
              "step" if done == 1 else "later step")
        return super().train_step(step)

    def save(self, *, now: bool, busy: float) -> float:
        if self.step == EVERY:
            enter("save")
            return super().save(now=now, busy=busy) + self.saver.finish()
        return super().save(now=now, busy=busy)


def show(accounts: dict[int, Account], seconds: dict[int, float]) -> None:
    """What grows with the ranks, and how."""
    sizes = [size for size in accounts if size >= 64] or list(accounts)
    table = Table("what", "of", *(f"{size:,} ranks" for size in accounts), "exponent", title="what ranks do")
    for phase in PHASES:
        for of, what in (("rank 0", "rounds"), ("rank 0", "sent_bytes"), ("rank 0", "looks"), ("rank 0", "files"),
                         ("all", "looks"), ("all", "opens"), ("all", "files"), ("all", "changes")):
            found = {size: a.of(phase, 0, what) if of == "rank 0" else a.all(phase, what) for size, a in accounts.items()}
            if any(found.values()):
                law = exponent(sizes, [found[size] for size in sizes])
                table.add_row(f"{phase}: {what}", of, *(f"{found[size]:,}" for size in accounts), f"{law:.2f}")
    table.add_row("CPU time of the simulation", "", *(f"{seconds[size]:.1f} s" for size in accounts), "")
    table.caption = f"most memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    Console(width=150).print(table)
