"""The steps of a replication: the commands that a user would type, for the data once and for every seed anew. Pure.

Every seed draws its own weights, order of clips, part of the footage and labelled clips, so that seeds are independent.
Words in braces stand for runs of the same seed: `{video}` becomes the run folder of the video model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EVERY = ("labels", "footage", "fill", "robust", "order", "looks", "still")
"""Keys of the claims (analysis/page/replication/claims.py)."""
FOOTAGE, ACTIONS, MOTION, PICTURES = "footage", "actions", "motion", "digits"
WHOLE, FULL = "video", "-full"


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        seeds: Independent repetitions.
        minutes: No seed begins that would end later.
        parallel: Seeds that are worked on at a time.
        size: Of the encoder, as in mae_vit_{size}_patch16.
        img_px: Side of a clip.
        kept_px: Short side of the frames that are prepared once.
        decoder: Width, blocks and heads.
        batch: Clips of a step.
        steps: Of every pretraining run.
        lr: Learning rate.
        parts: Shares of the footage beside all of it.
        shots: Labelled clips of each class.
        epochs: Of finetuning.
        scenes: Clips of each motion of the camera, to learn from and as many to be tested on.
        tests: Test pictures of each class.
        labels: Share of the labelled pictures that is learned from.
        conditions: Corruptions.
        device: cpu or cuda.
        workers: Loader processes of a run.
    """

    seeds: int
    minutes: float
    parallel: int
    size: str
    img_px: int
    kept_px: int
    decoder: tuple[int, int, int]
    batch: int
    steps: int
    lr: float
    parts: tuple[float, ...]
    shots: int
    epochs: int
    scenes: int
    tests: int
    labels: float
    conditions: str
    device: str
    workers: int = 1


CORRUPTIONS = "gaussian_noise:3,defocus_blur:3,fog:3,contrast:3,pixelate:3,jpeg_compression:3"
SCALES = {
    "tiny": Scale(seeds=3, minutes=60, parallel=2, size="pico", img_px=32, kept_px=40, decoder=(24, 1, 2), batch=8, steps=3,
                  lr=8e-4, parts=(0.25,), shots=2, epochs=1, scenes=2, tests=10, labels=0.02,
                  conditions="gaussian_noise:3", device="cpu"),
    "small": Scale(seeds=6, minutes=60, parallel=2, size="nano", img_px=64, kept_px=80, decoder=(96, 2, 3), batch=32,
                   steps=300, lr=8e-4, parts=(0.0625, 0.25), shots=10, epochs=20, scenes=20, tests=50, labels=0.1,
                   conditions=CORRUPTIONS, device="cpu"),
    "gpu": Scale(seeds=6, minutes=8, parallel=6, size="tiny", img_px=112, kept_px=128, decoder=(192, 4, 6), batch=256,
                 steps=400, lr=8e-4, parts=(0.0625, 0.25), shots=10, epochs=20, scenes=30, tests=50, labels=0.1,
                 conditions=CORRUPTIONS, device="cuda", workers=2),
}


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        name: One word, of the record that it was done.
        words: The command without `python`.
        claims: Which claims need it.
        role: Of the model that it pretrains; `pair` for two of them.
    """

    name: str
    words: tuple[str, ...]
    claims: tuple[str, ...] = EVERY
    role: str = ""


def part_role(share: float) -> str:
    """What the model of a part of the footage is called."""
    return f"part{share:g}"


def data_steps(scale: Scale, *, footage: str, labelled: str) -> list[Step]:
    """What is prepared once for all seeds.

    Args:
        scale: How large.
        footage: Folder of the recordings to pretrain on.
        labelled: List of the labelled clips (its name without -val and .csv), or empty: motions of the camera are learned.
    """
    films = "demo" if labelled else "apart"
    listed = Listing(scale.kept_px)
    clips = Step("clips", ("jobs/submit/example/demo_clips.py", "--out", "clips", "--clips", str(scale.scenes), "--films",
                           films))
    pictures = Step("pictures", ("jobs/submit/example/demo_pictures.py", "--out", "pictures", "--val", str(scale.tests)))
    steps = [*listed.prepared(footage, FOOTAGE), clips]
    for ending in ("", "-val"):
        steps += listed.prepared(f"clips/{MOTION}{ending}", f"{MOTION}{ending}", "--labels", "folders")
    if labelled:
        for ending in ("", "-val"):
            steps += listed.prepared(f"{labelled}{ending}.csv", f"{ACTIONS}{ending}")
        steps.append(Step("apart-actions", ("jobs/prepare.py", "check", ACTIONS, f"{ACTIONS}-val")))
    steps += [Step("apart-motion", ("jobs/prepare.py", "check", MOTION, f"{MOTION}-val")), pictures]
    steps += [Step(f"list-{name}", ("jobs/prepare.py", "manifest", f"pictures/{name}", "--images", "--labels", "folders",
                                    "--name", name, "--no-clip-cost")) for name in (PICTURES, f"{PICTURES}-val")]
    return steps


@dataclass(frozen=True)
class Listing:
    """Lists recordings and keeps small frames of them."""

    kept_px: int

    def prepared(self, source: str, name: str, *labels: str) -> list[Step]:
        """The two commands that make the data set `name` of a source."""
        raw = name.removesuffix("-val") + FULL + ("-val" if name.endswith("-val") else "")
        return [Step(f"list-{name}", ("jobs/prepare.py", "manifest", source, *labels, "--name", raw, "--no-clip-cost")),
                self.kept(raw, name)]

    def kept(self, raw: str, name: str) -> Step:
        """The command that keeps small frames of a data set."""
        return Step(f"keep-{name}", ("jobs/prepare.py", "footage", raw, "--fps", "30", "--short-side", str(self.kept_px),
                                     "--quality", "90", "--name", name, "--cluster", "local", "--workers", "1"))


def seed_steps(scale: Scale, seed: int, tasks: Mapping[str, str], sampling_rate: int) -> list[Step]:
    """Everything that one seed does.

    Args:
        scale: How large.
        seed: Of weights, order, part of the footage and labelled clips.
        tasks: Task of a claim -> data set.
        sampling_rate: Frame stride of pretraining at 30 fps.
    """
    here = Here(scale, seed)
    models = here.pretraining(sampling_rate)
    learned = {task: [WHOLE, "shuffled", "scratch"] for task in ("actions", "motion")}
    learned["actions"] += [part_role(share) for share in scale.parts]
    learned["motion"].append("image")
    cells = []
    for name in dict.fromkeys((tasks["actions"], tasks["motion"])):
        roles = list(dict.fromkeys(role for task in learned if tasks[task] == name for role in learned[task]))
        claims = tuple({"actions": ("labels", "footage"), "motion": ("order", "still")}[task] for task in learned
                       if tasks[task] == name)
        cells.append(here.few_shot(name, roles, sum(claims, ())))
    pictures = tasks["pictures"]
    return [*models, *cells, here.pictures(pictures), here.corrupted(pictures), here.filled(tasks["actions"])]


@dataclass(frozen=True)
class Here:
    """The commands of one seed, in its own folder of runs."""

    scale: Scale
    seed: int

    @property
    def runs(self) -> str:
        """Folder of the runs."""
        return f"seed-{self.seed}/runs"

    @property
    def where(self) -> tuple[str, ...]:
        """On this machine; what failed is tried again."""
        return ("--cluster", "local", "--runs-dir", self.runs)

    def pretraining(self, sampling_rate: int) -> list[Step]:
        """The pair, the models of parts of the footage, and the one of shuffled frames."""
        s, sets = self.scale, self._sets(sampling_rate)
        images = _set({"train.global_batch": 16 * s.batch, "train.micro_batch": 16 * s.batch, **self._decoder()},
                      "--image-set")
        pair = Step("pair", ("sweeps/pair.py", "--video", "demo", "--image", "demo_image", "--match", "frames", "--name",
                             WHOLE, "--data", FOOTAGE, *sets, *images, *self.where, "--json", "--retry"), role="pair")
        shuffled = Step("shuffled", self._pretrain(WHOLE, FOOTAGE, (*sets, "--set", "data.clip=shuffled-frames")),
                        ("order", "looks"), "shuffled")
        parts = []
        for share in s.parts:
            raw, name = f"{FOOTAGE}{FULL}-{share:g}-random-seed{self.seed}", f"{FOOTAGE}-{share:g}-seed{self.seed}"
            take = ("jobs/prepare.py", "fraction", f"{FOOTAGE}{FULL}", "--fractions", f"{share:g}", "--subset", "random",
                    "--seed", str(self.seed), "--pattern", "(?P<recording>.+)")
            role, keep = part_role(share), Listing(s.kept_px).kept(raw, name).words
            parts += [Step(f"take-{share:g}", take, ("footage",)), Step(f"keep-{share:g}", keep, ("footage",)),
                      Step(role, self._pretrain(role, name, sets), ("footage",), role)]
        return [pair, shuffled, *parts]

    def _pretrain(self, role: str, data: str, sets: tuple[str, ...]) -> tuple[str, ...]:
        return ("jobs/pretrain.py", "--recipe", "demo", "--name", role, "--data", data, *sets, *self.where, "--wait",
                "--json", "--retry")

    def _decoder(self) -> dict[str, object]:
        width, blocks, heads = self.scale.decoder
        return {"model.decoder_embed_dim": width, "model.decoder_depth": blocks, "model.decoder_num_heads": heads}

    def _sets(self, sampling_rate: int) -> tuple[str, ...]:
        s = self.scale
        return _set({"seed": self.seed, "model.name": f"mae_vit_{s.size}_patch16", "model.img_size": s.img_px,
                     **self._decoder(), "data.sampling_rate": sampling_rate, "data.workers": s.workers,
                     "train.global_batch": s.batch, "train.micro_batch": s.batch, "train.threads": 1, **self._computing(),
                     **self._phases(f"{s.steps} steps", s.lr, f"{s.steps // 10} steps"),
                     "checkpoint.every_steps": 1000, "log.picture": "false", "log.tensorboard": "false"})

    def _computing(self) -> dict[str, object]:
        """The device and, since `auto` may choose otherwise from run to run, the precision."""
        return {"train.device": self.scale.device, "train.precision": "fp32" if self.scale.device == "cpu" else "bf16"}

    def _phases(self, duration: str, lr: float, warmup: str) -> dict[str, object]:
        return {"train.phases": f"[{{duration: {duration}, lr: {lr:.1e}, warmup: {warmup}, schedule: cosine}}]"}

    def few_shot(self, data: str, roles: list[str], claims: tuple[str, ...]) -> Step:
        """Finetuning from few labelled clips."""
        s = self.scale
        sets = _set({"data.sampling_rate": 8, **self._computing(),
                     **self._phases(f"{s.epochs} epochs", 1e-3, f"{s.epochs // 10} epochs")})
        return Step(f"cells-{data}", ("sweeps/fewshot.py", "--recipe", "finetune_demo", "--data", data, "--shots",
                                      str(s.shots), *self._cells(roles), *sets), claims)

    def pictures(self, data: str) -> Step:
        """A linear probe on a share of the labelled pictures."""
        cells = self._cells([WHOLE, "image", "shuffled", "scratch"])
        return Step("cells-pictures", ("sweeps/objects.py", "--recipe", "finetune_demo", "--data", data, "--method",
                                       "linear", "--fractions", f"{self.scale.labels:g}", *cells,
                                       *_set(self._computing())), ("robust", "looks"))

    def _cells(self, roles: list[str]) -> tuple[str, ...]:
        checkpoints = ",".join(role if role == "scratch" else f"{{{role}}}" for role in roles)
        return ("--seeds", str(self.seed), "--checkpoints", checkpoints, *self.where, "--max-parallel", "1", "--watch",
                "--retry")

    def corrupted(self, data: str) -> Step:
        """The pair on corrupted pictures, and random weights of both shapes."""
        models = f"{WHOLE}-{data}-*", f"{WHOLE}-image-frames-{data}-*", f"scratch-*-{data}-*"
        return Step("corrupted", ("sweeps/robustness.py", *models, "--conditions", self.scale.conditions, *self.where,
                                  "--max-parallel", "1", "--watch", "--retry"), ("robust",))

    def filled(self, data: str) -> Step:
        """Hidden frames of the test clips."""
        return Step("fill", ("jobs/interpolate.py", "--run", "{video}", "--image", "{image}", "--untrained", "--videos",
                             f"{data}-val", "--sampling-rate", "8", "--out", f"seed-{self.seed}/fill", *self.where,
                             "--device", self.scale.device), ("fill",))


def _set(values: Mapping[str, object], flag: str = "--set") -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in (flag, f"{key}={value}"))
