"""The sections of a run's page on the run itself: how it stands, what it is, its curves, what it cost, what it left out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.page.charts import bar, chart, last_steps
from analysis.page.dossier import CURVES, FEWSHOT, Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet, duration, moment, number, setting
from vidmae.runs.attempts import PARTS, totals
from vidmae.runs.nodes.usage import Rates, said_of_energy, spent, uses_of
from vidmae.runs.record import totals_of_data

TRAINING = "Training"
TITLES = {"loss": ("Loss", "loss"), "lr": ("Learning rate", "learning rate"),
          "clips_per_s": ("Speed", "clips per second"), "data_wait": ("Waiting for clips", "share of a step")}
"""Of a curve and of its axis."""
OF_FEATURES = {"loss": ("Loss of features", "loss of features"),
               "target_std": ("Spread of the teacher's features over tokens; near 0: collapsed", "standard deviation"),
               "target_std_between": ("Spread over clips at the same place; near 0: features say no more than where",
                                      "standard deviation")}
"""The same of a run that predicts features."""
SCHEDULED = {"lr"}  # curves without noise
LINES = ("Thin line: mean of each span of steps. Thick line: the same, smoothed over a twentieth of the run. Band: "
         "least and most in each span.")
SETTINGS = {  # the few that say what a run is; the rest is folded
    "model.name": "Model", "model.img_size": "Input, px", "model.num_frames": "Frames per clip",
    "data.sampling_rate": "Sampling rate, frames at 30 fps", "model.mask_ratio": "Share of the tokens that is hidden",
    "model.mask": "Which tokens are hidden", "model.decoder_mask_ratio": "Share of these that the decoder leaves out",
    "model.target": "What is predicted of hidden tokens", "model.temporal_positions": "Table of positions in time",
    "data.without_child": "Child whose recordings are left out",
    "method": "Method", "train.global_batch": "Clips per step", "train.weight_decay": "Weight decay",
    "train.precision": "Precision", "select.rule": "Selection of the step", "evaluate.views": "Views of a clip",
    "seed": "Seed",
}
ONLY_IF_SET = {"model.decoder_mask_ratio", "data.without_child"}
# not shown: runs of earlier versions have no such setting
USUAL = {("model.target", "pixels"), ("model.mask", "random"), ("model.temporal_positions", True)}
ACCURACIES = {"top1_pct": "Top-1 accuracy", "top5_pct": "Top-5 accuracy"}
NUMBERS = {"steps": "Steps", "epochs": "Epochs", "train_clips": "Clips to learn from",
           "first_loss": "Loss of the first step", "last_loss": "Loss of the last step",
           "selected_step": "Tested step", "world_size": "Ranks", "zero_stage": "ZeRO stage"}
TIMES = {"train_s": "Training, h:mm:ss", "eval_s": "Test, h:mm:ss"}
LOOKS = ["step", "epoch", "on", "top1_pct", "top5_pct", "loss"]
PLACES = ("name", "data.manifest")  # settings that say where a run lies, not what it is
ITS_OWN = ("Signature", "Created", "Submissions")  # facts that no two runs share
MOST_OPEN = 20  # longer tables are folded
MOST_WINDOWS = 50


def what_it_is(run: Dossier) -> Section:
    """Model, data and code."""
    facts = [(label, number(run.config[key])) for key, label in SETTINGS.items()
             if key in run.config and (run.config[key] or key not in ONLY_IF_SET) and (key, run.config[key]) not in USUAL]
    facts += [(f"Phase {place}", phase_of(phase)) for place, phase in enumerate(run.config.get("train.phases") or (), 1)
              if isinstance(phase, dict)]
    tables = [Table("Model, data and code", pd.DataFrame([*facts, *data_facts(run), *code_facts(run)]))]
    settings = [(key, setting(value)) for key, value in run.config.items() if value != ""]
    if settings:
        tables.append(Table("All settings", pd.DataFrame(settings), folded=True))
    return Section("What it is", [] if run.config else ["There is no config.yaml, so the settings are not known."],
                   tables=tables)


def phase_of(phase: dict[str, Any]) -> str:
    """A phase of the schedule in one line."""
    rate = f"lr {number(phase['lr'])}" if phase.get("lr") is not None else f"blr {number(phase.get('blr'))}"
    length, schedule, warmup = (discreet(phase.get(name)) for name in ("duration", "schedule", "warmup"))
    return f"{length}, {rate}, {schedule}, warm-up {warmup}"


def data_facts(run: Dossier) -> list[tuple[str, str]]:
    """What it was trained on."""
    fraction, cell = run.record.get("fraction") or {}, run.record.get("cell") or {}
    facts = [("Data set", discreet(run.record.get("data") or run.config.get("data.name") or "not known"))]
    if version := run.record.get("content_sha256"):
        facts.append(("Version of the manifest", discreet(version[:8])))
    if "videos" in run.record:
        facts.append(("Clips to learn from" if run.kind == FEWSHOT else "Videos", number(run.record["videos"])))
    hours = fraction.get("has_hours") or totals_of_data(run.record).get("seconds", 0) / 3600
    if hours and run.kind != FEWSHOT:
        facts.append(("Hours of video", number(hours)))
    if fraction:
        share = f"{100 * fraction['share']:.4g} % " if fraction.get("share") else ""
        facts.append(("Fraction", discreet(f"{share}of {fraction.get('of')}, {fraction.get('subset')}")))
    for source in run.record.get("sources") or ():
        videos, hours, share_pct = map(number, (source["videos"], source["hours"], 100 * source["share"]))
        facts.append((f"Source {discreet(source['name'])}", f"{videos} videos, {hours} h, {share_pct} % of the clips"))
    facts += [(key.capitalize(), number(cell[key])) for key in ("checkpoint", "shots", "fraction") if key in cell]
    return facts + [(f"Override {key}", number(value)) for key, value in (cell.get("overrides") or {}).items()]


def code_facts(run: Dossier) -> list[tuple[str, str]]:
    """Which code, in which state, how often submitted."""
    if not run.record:
        return [("Code", "not known: there is no run.json")]
    dirty: dict[object, str] = {
        True: "with changes that are not committed (code/ in the run folder has them)", False: "clean"}
    commit, state = str(run.record.get("commit") or "not known")[:12], dirty.get(run.record.get("dirty"), "not known")
    created = str(run.record.get("created") or "not known").replace("T", " ").replace("+00:00", " UTC")
    return [("Commit", f"{commit}, {state}"), ("Signature", run.signature or "not known"), ("Created", created),
            ("Submissions", number(len(run.record.get("submissions") or ())))]


def facts_of(run: Dossier) -> dict[str, str]:
    """What says whether two runs are alike: settings under dotted names, and facts on data and code, without file names."""
    settings = {key: setting(value) for key, value in run.config.items() if key not in PLACES}
    known = {label: text for label, text in [*data_facts(run), *code_facts(run)] if label not in ITS_OWN}
    return {"kind": run.kind or "--", **settings, **known}


def how_it_stands(run: Dossier) -> Section:
    """State, and the numbers of the result."""
    beat, result, words = run.heartbeat, run.result, []
    if run.state == "failed":
        error, message = (discreet(run.failure.get(key)) for key in ("error", "message"))
        words.append(f"Failed {moment(run.failure.get('time'))}, rank {number(run.failure.get('rank'))}: {error}: {message}")
    if run.state != "done" and beat:
        words.append(f"Step {number(beat.get('step'))} of {number(beat.get('total_steps'))}, last sign of life "
                     f"{moment(beat.get('time'))}.")
    if run.state != "done":
        words.append({"not started": "No job of this run has begun to train.", "failed": "There is no result."}.get(
            run.state, "There is no result yet; this page says what was known when it was made."))
    facts = [(label, accuracy(run, name)) for name, label in ACCURACIES.items() if name in result]
    if isinstance(result.get("classes"), int) and result["classes"]:
        facts.append(("Chance", f"{100 / result['classes']:.3g} % ({result['classes']} classes)"))
    facts += [(label, number(result[name])) for name, label in NUMBERS.items() if result.get(name) is not None]
    facts += [(label, duration(result[name])) for name, label in TIMES.items() if name in result]
    facts += [("Finished", moment(result["finished"]))] if "finished" in result else []
    tables = [Table("Numbers of the result", pd.DataFrame(facts))] if facts else []
    looks = pd.DataFrame([[number(look.get(name)) for name in LOOKS] for look in run.looks], columns=LOOKS)
    if len(looks):
        tables.append(Table("Looks at the model between two steps", looks, 1, folded=len(looks) > MOST_OPEN))
    return Section("State and result", words, tables=tables)


def accuracy(run: Dossier, name: str) -> str:
    """An accuracy with its interval."""
    ends, interval = run.result.get(name.replace("_pct", "_ci_pct")), ""
    if isinstance(ends, list) and len(ends) == 2:
        interval = f" (95 % interval over clips: {number(ends[0])} to {number(ends[1])})"
    return f"{number(run.result[name])} %{interval}"


def curves(run: Dossier) -> Section:
    """Loss, learning rate, speed, waiting; of a run that predicts features also whether these have collapsed."""
    step, of_features = run.curves["step"].to_numpy(), run.config.get("model.target") == "features"
    titles = TITLES | (OF_FEATURES if of_features else {})
    charts = [drawn for name in CURVES if name in titles and (drawn := chart(
        titles[name][0], step, run.curves[name].to_numpy(), titles[name][1], noisy=name not in SCHEDULED))]
    if charts:
        return Section(TRAINING, [LINES], charts=charts)
    without = run.state == "done" and run.result.get("steps") is None
    return Section(TRAINING, [
        f"There are no curves: {'this method has no steps' if without else 'no step is recorded'}."])


def seconds(run: Dossier) -> Section:
    """Where the seconds of all attempts went, and every start of the job."""
    title = "Where the seconds went"
    if not run.attempts:
        return Section(title, ["There is no account of attempts (attempts.json)."])
    spent, ranks = totals(run.attempts), run.result.get("world_size") or (run.record.get("plan") or {}).get("world_size")
    parts = pd.Series({part.removesuffix("_s"): spent[part] for part in PARTS})
    whole = float(parts.sum())
    good = "not known before the first step" if spent["goodput"] is None else f"{100 * spent['goodput']:.1f} %"
    words = [f"Goodput, the share of the seconds that went into steps done for the first time: {good}."]
    if ranks:
        words.append(f"GPU-hours (rank-hours where there are no GPUs): {number(whole * ranks / 3600)}.")
    words += energy(run)
    share = (100 * parts / whole).map("{:.1f}".format) if whole else "--"
    cells = pd.DataFrame({"part": parts.index, "h:mm:ss": parts.map(duration), "share, %": share})
    cells.loc["between"] = ["in the queue between attempts", duration(spent["between_s"]), "--"]
    return Section(title, words, bar=bar(f"Shares of {duration(whole)}", parts), tables=[
        Table("All attempts", cells, 1), Table("Attempts", attempts(run), 4, folded=len(run.attempts) > MOST_OPEN)])


def energy(run: Dossier) -> list[str]:
    """What its jobs have drawn, with the rates that the site had when they were submitted; nothing where that is unknown."""
    try:
        found = spent(uses_of(run.run), Rates())
    except ValueError:
        return []  # the page says which record is damaged
    said = said_of_energy(found)
    without = (f"Not counted: {line}." for line in found.without)
    return [f"Energy by the records of the run: {said}.", *without] if said else []


def attempts(run: Dossier) -> pd.DataFrame:
    """Every start of the ranks."""
    later = [*(discreet(a.restarted) for a in run.attempts[1:]), ""]
    return pd.DataFrame([{
        "attempt": str(place), "job": discreet(a.job_id), "started": moment(a.started),
        "ended": run.ended(a) or later[place - 1] or "running, failed or killed", "h:mm:ss": duration(a.updated - a.started),
        "steps before": f"{a.first_step:,}", "steps after": f"{a.last_step:,}", "repeated": f"{a.repeated_steps:,}",
        "slowest save, s": f"{a.slowest_save_s:.1f}"} for place, a in enumerate(run.attempts, 1)])


def left_out(run: Dossier) -> Section:
    """Videos that could not be read, and global batches that were left out."""
    videos = pd.DataFrame([(video.row, discreet(video.reason), video.clips) for _, video in run.replaced],
                          columns=["row", "reason", "clips"])
    windows = pd.DataFrame([(number(window.get("window")), discreet(window.get("why")), moment(window.get("time")))
                            for window in run.left_out], columns=["window", "why", "when"])
    words = [f"Videos that could not be read and were replaced: {videos['row'].nunique()}.",
             f"Global batches left out after NaN or infinity: {windows['window'].nunique()}."]
    why = videos.groupby("reason", as_index=False).agg(videos=("row", "nunique"), clips=("clips", "sum"))
    why = why.sort_values(["clips", "reason"], ascending=[False, True])
    why = why.assign(**why[["videos", "clips"]].map("{:,}".format))
    tables = [Table("Why videos were replaced", why, 1)] if len(why) else []
    if len(windows):
        tables.append(Table("Global batches that were left out", windows[:MOST_WINDOWS], 3))
    return Section("Data left out", words, tables=tables)


def key_figures(run: Dossier) -> list[tuple[str, str]]:
    """The few numbers at the top."""
    result, good, losses = run.result, totals(run.attempts)["goodput"], run.curves["loss"].dropna()
    count = last_steps(len(losses))
    figures = {
        "top-1 accuracy, %": result.get("top1_pct"), "top-5 accuracy, %": result.get("top5_pct"),
        f"loss, mean of the last {count:,} steps" if count > 1 else "last loss":
            losses.tail(count).mean() if len(losses) else result.get("last_loss"),
        "steps": result.get("steps") or (run.attempts[-1].last_step if run.attempts else None),
        "clips per second": result.get("clips_per_s"), "goodput, %": None if good is None else 100 * good}
    return [(name, number(value)) for name, value in figures.items() if value is not None]
