"""The schema of a run: frozen dataclasses, one field a setting, its meaning under it.

`layers.py` fills them from recipes, profiles and flags. No torch here: the launchers read a recipe in milliseconds.
`RunConfig` is what every training run has; pretraining adds its objective here, finetuning in `finetune_config.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidmae.settings.keeping_config import CheckpointConfig, LogConfig, RecoveryConfig
from vidmae.settings.layers import ConfigError, check, nearest, signed_if_changed, unsigned
from vidmae.settings.schedule import Phase
from vidmae.settings.sizes import MaskKind, ModelShape, model_shape

NO_TIME_TABLE = "no-time-table"  # in names of runs and cells without model.temporal_positions
RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class NetConfig:
    """What every network here has: size, input, and how it computes."""

    name: str = "vit_huge_patch14"
    """`vit_{size}_patch{px}`; size is pico, nano, tiny, small, base, large, huge or giant."""
    img_size: int = 224
    """Side of the square input in px; a multiple of the patch size."""
    num_frames: int = 16
    """Frames per clip; a multiple of t_patch_size."""
    t_patch_size: int = 2
    """Frames per token."""
    attention: Literal["auto", "sdpa", "naive"] = unsigned("auto")
    """Attention kernel; auto takes the one that was measured to be faster for the device and the precision."""
    activation_checkpointing: bool | int = unsigned(False)
    """Recompute blocks in the backward pass: less memory, about a fifth slower. true: each block; N: every N-th, for an
    N-th of the time and of the saving."""

    def __post_init__(self) -> None:
        check(self.img_size > 0, "model.img_size", self.img_size, "a positive number of px")
        check(self.t_patch_size > 0 and self.num_frames > 0 and self.num_frames % self.t_patch_size == 0,
              "model.num_frames", self.num_frames, f"a positive multiple of model.t_patch_size {self.t_patch_size}")
        check(self.activation_checkpointing is False or self.activation_checkpointing >= 1, "model.activation_checkpointing",
              self.activation_checkpointing, "false, true (each block) or N (every N-th block), 1 or more")


@dataclass(frozen=True)
class ModelConfig(NetConfig):
    """A masked autoencoder and its objective."""

    name: str = "mae_vit_huge_patch14"
    """`mae_vit_{size}_patch{px}`; size is pico, nano, tiny, small, base, large, huge or giant."""
    mask_ratio: float = 0.9
    """Share of the tokens that is hidden from the encoder."""
    decoder_embed_dim: int = 512
    """Width of the decoder."""
    decoder_depth: int = 4
    """Blocks of the decoder."""
    decoder_num_heads: int = 16
    """Attention heads of the decoder."""
    norm_pix_loss: bool = False
    """Normalise each target patch by its own mean and variance."""
    pred_t_dim: int = 16
    """Frames of a clip that are predicted, evenly spread; num_frames predicts all. model.target features does not use it."""
    decoder_mask_ratio: float = signed_if_changed(0.0)
    """Share of the hidden tokens that the decoder does not rebuild in training: less work, another objective; 0: none."""
    mask: MaskKind = signed_if_changed("random")  # noqa: RUF009  (it is dataclasses.field)
    """What is hidden. random: tokens anywhere in space and time. tube: the same places in all time steps. causal: the
    second half of the clip, and of the first half all but tubes: the model must say what comes next."""
    temporal_positions: bool = signed_if_changed(True)
    """Encoder and decoder have a learned table of positions in time. false leaves both tables out: the model knows where a
    token is in the picture, and not when."""
    target: Literal["pixels", "features"] = signed_if_changed("pixels")
    """What the decoder predicts of hidden tokens. features: what a teacher makes of them, which sees the whole clip; it is a
    running average of the model (V-JEPA), and the run's weights are the teacher's."""
    feature_loss: Literal["l1", "smooth"] = signed_if_changed("l1")
    """Of model.target features. l1: mean absolute difference, as V-JEPA; smooth: squared below a difference of 1."""
    teacher_momentum: tuple[float, float] = signed_if_changed((0.998, 1.0))
    """Of model.target features: share of the teacher that stays at an update, of the first and what it rises to, evenly over
    the run. V-JEPA has 0.998 to 1, V-JEPA 2 0.99925; runs of few steps need less."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.mask_ratio < 1, "model.mask_ratio", self.mask_ratio, "between 0 and 1, both excluded")
        check(0 <= self.decoder_mask_ratio < 1, "model.decoder_mask_ratio", self.decoder_mask_ratio,
              "from 0 (the decoder rebuilds all hidden tokens) to below 1")
        check(self.mask == "random" or self.num_frames > self.t_patch_size, "model.mask", self.mask,
              f"random with model.num_frames {self.num_frames} and model.t_patch_size {self.t_patch_size}, which are one "
              "time step; tube and causal need several")
        low, high = self.teacher_momentum
        check(0 <= low <= high <= 1, "model.teacher_momentum", list(self.teacher_momentum), "0 <= first <= last <= 1")
        if self.target == "features":
            check(not self.norm_pix_loss, "model.norm_pix_loss", self.norm_pix_loss,
                  "false with model.target features, which predicts no pixels")
        else:
            check(1 <= self.pred_t_dim <= self.num_frames, "model.pred_t_dim", self.pred_t_dim,
                  f"1 to model.num_frames {self.num_frames}")
            usual = ModelConfig.feature_loss, ModelConfig.teacher_momentum
            check(self.feature_loss == usual[0], "model.feature_loss", self.feature_loss,
                  f"{usual[0]} with model.target pixels, which has no teacher")
            check(self.teacher_momentum == usual[1], "model.teacher_momentum", list(self.teacher_momentum),
                  f"{list(usual[1])} with model.target pixels, which has no teacher")

    @property
    def tags(self) -> tuple[str, ...]:
        """What a run's name must say of its objective and controls: features, decoder50 where half of the hidden tokens are
        rebuilt, tube or causal, no-time-table; nothing where all is as usual."""
        low, high = self.teacher_momentum
        usual = (low, high) == ModelConfig.teacher_momentum
        teacher = ["features" if self.target == "features" else "", "smooth" if self.feature_loss == "smooth" else "",
                   "" if usual else f"ema{low:g}" if low == high else f"ema{low:g}to{high:g}"]
        decoder = f"decoder{100 * (1 - self.decoder_mask_ratio):.4g}" if self.decoder_mask_ratio else ""
        return tuple(filter(None, [*teacher, decoder, "" if self.mask == "random" else self.mask,
                                   "" if self.temporal_positions else NO_TIME_TABLE]))

    def shape(self) -> ModelShape:
        """Sizes and token arithmetic of the model.

        Raises:
            ValueError: Sizes do not divide, or the name is unknown.
        """
        return model_shape(
            self.name, img_size=self.img_size, num_frames=self.num_frames, t_patch_size=self.t_patch_size,
            decoder_embed_dim=self.decoder_embed_dim, decoder_depth=self.decoder_depth,
            decoder_num_heads=self.decoder_num_heads, mask_ratio=self.mask_ratio, pred_t_dim=self.pred_t_dim,
            decoder_mask_ratio=self.decoder_mask_ratio, mask=self.mask, temporal_positions=self.temporal_positions,
            target=self.target)


@dataclass(frozen=True)
class DataConfig:
    """The recordings and how clips are cut from them."""

    name: str = "s"
    """Name of the data set in the catalogue (s, say, kinetics, kinetics-200h, ssv2 ...)."""
    manifest: str = unsigned("")
    """The manifest that the name stands for; filled in by the launcher. Its content, not its path, is signed."""
    sampling_rate: int = 8
    """Frame stride at target_fps."""
    target_fps: float = 30.0
    """Frame rate that sampling_rate is counted in; 8 of 30 fps is 3.75 fps whatever the file's own rate."""
    crop_area: tuple[float, float] = (0.5, 1.0)
    """Share of the frame's area that the random resized crop keeps, lowest and highest."""
    crop_aspect: tuple[float, float] = (0.75, 1.333)
    """Aspect ratio (width / height) of the crop, lowest and highest."""
    flip_prob: float = 0.5
    """Probability of a horizontal flip, one draw per clip."""
    repeat_aug: int = 16
    """Clips cut from each opened video."""
    repeat_window: Literal["own", "shared", "near"] = "own"
    """own: each repeat has its own time window (the paper's text); shared: one window for all (released code); near: its
    own, but all of them within repeat_near_s, so that repeats share decoded frames; at the end of a video they come round
    to its beginning."""
    repeat_near_s: float = signed_if_changed(10.0)
    """Seconds of footage within which the windows of repeats lie, with data.repeat_window near. 10 is what a clip of
    Kinetics has, from which repeats are drawn where data sets are such."""
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    """Video reader. auto takes for each file the one that the manifest names; another must have read all files rightly."""
    recheck_pct: float = unsigned(0.1)
    """Share of the clips, percent, that is read again in another way: by PyAV from an earlier key frame, or for archives by
    Pillow. Clips that differ are counted and named by row."""
    workers: int = unsigned(8)
    """Loader processes per rank; with 0 the training process waits for every clip."""
    read_limit_s: float = unsigned(60.0)
    """Seconds for reading one video, all its repeats; then its reader process is killed. 0: no limit and no such process."""
    read_retries: int = unsigned(1)
    """Further tries to read a video that cannot be read; then another takes its place."""
    max_bad_pct: float = unsigned(1.0)
    """Share of the videos, percent, that may be replaced; more stop the run. Counted over 1,000 videos at least."""
    stage: str = unsigned("")
    """Folder on a disk of each node, such as $TMPDIR; archives are copied there while training reads them. Empty: none."""
    stage_gib: float = unsigned(0.0)
    """GiB that the copies may take; 0: what the disk has room for, less a tenth of it."""

    def __post_init__(self) -> None:
        check(self.sampling_rate >= 1, "data.sampling_rate", self.sampling_rate, "1 or more frames")
        check(self.target_fps > 0, "data.target_fps", self.target_fps, "more than 0 fps")
        low, high = self.crop_area
        check(0 < low <= high <= 1, "data.crop_area", list(self.crop_area), "0 < lowest <= highest <= 1")
        low, high = self.crop_aspect
        check(0 < low <= high, "data.crop_aspect", list(self.crop_aspect), "0 < lowest <= highest")
        check(0 <= self.flip_prob <= 1, "data.flip_prob", self.flip_prob, "0 to 1")
        check(self.repeat_aug >= 1, "data.repeat_aug", self.repeat_aug, "1 or more clips per video")
        check(self.repeat_near_s > 0, "data.repeat_near_s", self.repeat_near_s, "more than 0 seconds")
        check(self.workers >= 0, "data.workers", self.workers, "0 or more processes")
        check(self.read_limit_s >= 0, "data.read_limit_s", self.read_limit_s, "0 (no limit) or more seconds")
        check(self.read_retries >= 0, "data.read_retries", self.read_retries, "0 or more tries")
        check(0 <= self.recheck_pct <= 100, "data.recheck_pct", self.recheck_pct, "0 (off) to 100 percent")
        check(0 <= self.max_bad_pct <= 100, "data.max_bad_pct", self.max_bad_pct, "0 to 100 percent")
        check(self.stage_gib >= 0, "data.stage_gib", self.stage_gib, "0 (what there is room for) or more GiB")


@dataclass(frozen=True)
class SourceConfig:
    """One data set of a mixture (data.sources)."""

    name: str = ""
    """Name of the data set in the catalogue."""
    weight: float = 1.0
    """How often its footage comes for each time that footage of weight 1 comes; 0.5 shows it once in two epochs."""
    hours: float | None = None
    """So many hours of it and no more: whole videos, drawn by the run's seed; null takes all."""
    sampling_rate: int | None = None
    """Frame stride of its clips at its target_fps; null takes data.sampling_rate."""
    target_fps: float | None = None
    """Frame rate that its sampling_rate is counted in; null takes data.target_fps."""
    manifest: str = unsigned("")
    """The manifest that the name stands for; filled in by the launcher. Its content, not its path, is signed."""

    def __post_init__(self) -> None:
        of = f"data.sources: {self.name or 'a source without a name'}:"
        if not self.name:
            raise ConfigError("data.sources: a source has no name; write for example [{name: s}, {name: a, weight: 0.5}]")
        if not self.weight > 0:
            raise ConfigError(f"{of} weight is {self.weight:g}, allowed: more than 0 (or leave the source out)")
        if self.hours is not None and not self.hours > 0:
            raise ConfigError(f"{of} hours is {self.hours:g}, allowed: more than 0")
        if self.hours is not None and self.weight != 1:
            raise ConfigError(f"{of} weight {self.weight:g} and hours {self.hours:g} are both set, allowed: one of them; "
                              "hours takes a part of the source, and weight says how often it comes")
        if self.sampling_rate is not None and self.sampling_rate < 1:
            raise ConfigError(f"{of} sampling_rate is {self.sampling_rate}, allowed: 1 or more frames")
        if self.target_fps is not None and not self.target_fps > 0:
            raise ConfigError(f"{of} target_fps is {self.target_fps:g}, allowed: more than 0 fps")


@dataclass(frozen=True)
class FootageConfig(DataConfig):
    """The recordings that a model is pretrained on: which, how often, and in which order."""

    sources: tuple[SourceConfig, ...] = signed_if_changed(())
    """A mixture of data sets in place of the one that data.name says (vidmae/mixtures/mixture_order.py)."""
    weight: Literal["videos", "seconds"] = signed_if_changed("videos")
    """What an epoch counts. videos: each video repeat_aug times. seconds: as many seconds as the footage has, of each video
    in proportion to its length; so a recording of hours is one row, and clips come from all of it."""
    order: Literal["shuffled", "age", "age-reversed", "single-pass", "windows"] = signed_if_changed("shuffled")
    """shuffled: at random. age: in each epoch from the youngest to the oldest; age-reversed: the other way. single-pass:
    each stretch of footage once, in order of age. windows: one age window after the other over the run, shuffled within."""
    age_windows: int = signed_if_changed(4)
    """Of data.order windows: how many, equal in footage and in length of training."""
    age_months: tuple[float, float] | None = signed_if_changed(None)
    """Take only recordings at these ages of the child, lowest and highest in months; null takes all."""
    without_child: str | None = signed_if_changed(None)
    """Leave out the recordings of this child, as the manifest (prepare.py manifest --about) or SAYCam's names call it; null
    leaves nobody out. A name of digits stands in quotes: '00220001'."""
    clip: Literal["normal", "shuffled-frames", "reversed", "frozen", "static-pair"] = signed_if_changed("normal")
    """How the frames of a clip are put together. shuffled-frames: in a random order; reversed: backwards; frozen: the
    middle frame all the time; static-pair: the first frame for one half of the clip, the last for the other."""
    resize: Literal["antialias", "linear"] = signed_if_changed("antialias")
    """How a crop gets the size of a clip. antialias: each pixel is a mean over all that it covers. linear: of the four
    nearest, as in the released code; a third faster, and grainier where crops are larger than clips."""
    window_frames: int = signed_if_changed(0)
    """Of an image model (model.num_frames 1): each clip is one frame of what a clip of so many frames would show. 0: a clip
    has a time window of its own. sweeps/pair.py sets it to the frames of the video model."""
    window_clips: int = signed_if_changed(0)
    """With window_frames: after so many clips the same time windows come again, and another frame of each is shown. 0: all
    clips have new windows. sweeps/pair.py sets it to the clips that the video model saw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [source.name for source in self.sources]
        check(len(set(names)) == len(names), "data.sources", names, "each name once")
        check(self.age_windows >= 2, "data.age_windows", self.age_windows, "2 or more windows")
        if self.age_months is not None:
            low, high = self.age_months
            check(0 <= low < high, "data.age_months", list(self.age_months), "0 <= lowest < highest")
        check(self.without_child != "", "data.without_child", self.without_child, "a child's name, or null")
        check(self.window_frames >= 0, "data.window_frames", self.window_frames, "0 (a window of its own) or more frames")
        check(self.window_clips == 0 or (self.window_clips > 0 and self.window_frames > 0), "data.window_clips",
              self.window_clips, "0, or with data.window_frames 1 or more clips")

    @property
    def is_plain(self) -> bool:
        """Whether each video of one manifest comes once in an epoch, in a random order."""
        return (not self.sources and self.weight == "videos" and self.order == "shuffled" and self.age_months is None
                and self.without_child is None)

    @property
    def takes_part(self) -> bool:
        """Whether some of the recordings are left out by what is known of them."""
        return self.age_months is not None or self.without_child is not None

    @property
    def by_age(self) -> bool:
        """Whether the order of the clips follows the ages of the recordings."""
        return self.order != "shuffled"

    @property
    def tag(self) -> str:
        """What a run's name must say of order, ages, children and clips, since tables call a run by its name; empty where as
        usual."""
        order = {"shuffled": "", "windows": f"{self.age_windows}-windows"}.get(self.order, self.order)
        ages = "" if self.age_months is None else "{:g}to{:g}months".format(*self.age_months)
        child = "" if self.without_child is None else "without-" + re.sub(r"[^A-Za-z0-9._]+", "_", self.without_child)
        return "-".join(filter(None, [order, ages, child, "" if self.clip == "normal" else self.clip]))


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    phases: tuple[Phase, ...] = (Phase(),)
    """What is trained in which order; each phase has a duration, a learning rate and a schedule."""
    global_batch: int = 256
    """Clips per optimizer step, over all ranks; kept whatever the number of GPUs."""
    micro_batch: Literal["auto"] | int = unsigned(64)
    """Clips per rank and forward pass, at most; grad_accum follows from it. auto: the most that fit on the GPU, found once
    where the run starts and kept in choices.json."""
    weight_decay: float = 0.05
    """AdamW weight decay; 1-D parameters and biases have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging factors."""
    clip_grad: float = 0.1
    """Largest global gradient norm; 0 does not clip."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of forward and backward; master weights and the loss are float32. auto: bf16 on a GPU; on a CPU bf16
    or fp32, what is faster where the run starts, and it keeps that when it goes on. fp16 needs a GPU."""
    zero_stage: Literal[0, 1, 2, 3] = unsigned(2)
    """DeepSpeed ZeRO: 0 nothing sharded, 1 optimizer state, 2 and gradients, 3 and parameters."""
    offload: Literal["none", "optimizer"] = unsigned("none")
    """optimizer: master weights and AdamW's averages lie in the host's memory, and the CPU updates them. ZeRO 1 to 3."""
    compile: Literal["auto", "graphs", True, False] = unsigned("auto")
    """torch.compile for the blocks of the model. auto: on a GPU, not on a CPU. A run keeps what it began with, since
    compiled arithmetic rounds differently; true or false decides anew. graphs: as true, and the GPU replays the kernels of
    a block as one CUDA graph, for small micro-batches, whose kernels are short. ZeRO 0 to 2."""
    deterministic: bool = unsigned(False)
    """Only kernels that add up in a fixed order, so that a run on a GPU repeats to the bit; slower on a GPU."""
    init: str = ""
    """Weights (.safetensors or released .pth) to start from; empty starts from scratch."""
    resize_positions: bool = unsigned(False)
    """Take weights of another image size or number of frames: position tables are interpolated (bicubic in space, linear in
    time). Weights that fit as they are stay as they are."""
    device: Literal["auto", "cuda", "cpu"] = unsigned("auto")
    """auto takes the GPU that the job was given, and the CPU where it was given none."""
    threads: int = unsigned(0)
    """CPU threads per rank for torch; 0 leaves OMP_NUM_THREADS in charge."""

    def __post_init__(self) -> None:
        check(len(self.phases) >= 1, "train.phases", list(self.phases), "at least one phase")
        check(self.global_batch >= 1, "train.global_batch", self.global_batch, "1 or more clips")
        check(self.micro_batch == "auto" or self.micro_batch >= 1, "train.micro_batch", self.micro_batch,
              "auto, or 1 or more clips")
        check(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        check(all(0 <= b < 1 for b in self.betas), "train.betas", list(self.betas), "two numbers in [0, 1)")
        check(self.clip_grad >= 0, "train.clip_grad", self.clip_grad, "0 (off) or more")
        check(self.precision != "fp16" or self.zero_stage > 0, "train.precision", self.precision,
              "bf16 or fp32 with train.zero_stage 0 (the loss scaler of fp16 comes with stages 1 to 3)")
        check(self.offload == "none" or self.zero_stage > 0, "train.offload", self.offload,
              "none with train.zero_stage 0, which shards nothing; ZeRO 1 to 3 can offload (--set train.zero_stage=1)")
        check(self.compile in ("auto", False) or self.zero_stage < 3, "train.compile", self.compile,
              "auto or false with train.zero_stage 3, which gathers weights inside the blocks; ZeRO 0 to 2 can compile")
        check(self.threads >= 0, "train.threads", self.threads, "0 (leave it) or more")

    @property
    def most_per_pass(self) -> int:
        """Clips per rank and forward pass, at most; with micro_batch auto, all that the global batch has."""
        return self.global_batch if self.micro_batch == "auto" else self.micro_batch


@dataclass(frozen=True)
class RunConfig:
    """One training experiment: everything that decides what is learned, and nothing of where it runs."""

    name: str = "run"
    """First part of the run folder's name."""
    seed: int = 0
    """Every random number of a run is a function of the seed and of the clip's position in the data order."""
    model: NetConfig = field(default_factory=NetConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig, metadata={"signature": False})
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig, metadata={"signature": False})
    log: LogConfig = field(default_factory=LogConfig, metadata={"signature": False})

    def __post_init__(self) -> None:
        ok = bool(self.name) and all(c.isalnum() or c in "._-" for c in self.name) and self.name[0] not in ".-"
        check(ok, "name", self.name, "letters, digits, dot, dash and underscore, not led by a dot or a dash")
        check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        check(self.train.compile != "graphs" or not self.model.activation_checkpointing, "train.compile", self.train.compile,
              "auto, true or false with model.activation_checkpointing, which computes blocks again outside of their graphs")
        if self.data.repeat_window == "near":
            for what, span_s in self.spans_s.items():
                check(self.data.repeat_near_s > span_s, "data.repeat_near_s", self.data.repeat_near_s, f"more than the "
                      f"{span_s:.4g} s that {what} covers, with data.repeat_window near; else all repeats have one window")

    @property
    def spans_s(self) -> dict[str, float]:
        """Seconds of footage that a clip covers, of what; of a mixture each source."""
        return {"a clip": self.data.sampling_rate * self.model.num_frames / self.data.target_fps}


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """One pretraining experiment."""

    name: str = "pretrain"
    """First part of the run folder's name."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: FootageConfig = field(default_factory=FootageConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.model.num_frames == 1 or not self.data.window_frames, "data.window_frames", self.data.window_frames,
              f"0 with model.num_frames {self.model.num_frames}; it is for image models, which have 1")
        check(self.model.target == "pixels" or not self.log.picture, "log.picture", self.log.picture,
              "false with model.target features, which has no pixel decoder to draw with")

    @property
    def spans_s(self) -> dict[str, float]:
        """See `RunConfig`."""
        data = self.data
        rates = {f"a clip of {each.name}": (each.sampling_rate or data.sampling_rate, each.target_fps or data.target_fps)
                 for each in data.sources} or {"a clip": (data.sampling_rate, data.target_fps)}
        return {what: stride * self.in_window / fps for what, (stride, fps) in rates.items()}

    @property
    def in_window(self) -> int:
        """Frames of a clip's time window; see data.window_frames."""
        return self.data.window_frames or self.model.num_frames


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name (`demo`) or by path (`my/recipe.yaml`).

    Raises:
        ConfigError: There is none; the message lists those that come with the suite.
    """
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    path = Path(name).expanduser() if is_path else RECIPES / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise ConfigError(f"no recipe {name!r}{nearest(name, known)}; there are: {', '.join(known)} (or a path to a .yaml)")
