"""Where the time of a pretraining step would go on a GPU: arithmetic, memory, links, clips; and what to do about it.

    python analysis/roofline.py --recipe pretrain_s_vith14 --gpu h100 --nodes 8
    python analysis/roofline.py --gpu a100 --nodes 4 --cores 8 --clip-cpu-ms 147
    python analysis/roofline.py --recipe pretrain_kinetics_vith14 --gpu h100 --nodes 1 --gpus 4 --clip-cpu-ms 568

The first table has the parts of one step of one GPU; ADDS is what a part adds to the step, the rest is hidden behind others.
The second table compares numbers of nodes with the same global batch. Nothing is measured here: peaks and bandwidths are the
vendors', the MFU is the measured one in vidmae/runs/measured_mfu.yaml or an assumption that is named, and the CPU time of a
clip is the one that was measured when the manifest was made, or --clip-cpu-ms. Standard output is the paths of the files
roofline.{csv,md,tex} and nodes.{csv,md,tex}, or with --json one object.

Exit codes: 0 ok, 2 a recipe, manifest, GPU or value that cannot be, or no place to write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import pandas as pd

from analysis.results.table_flags import Parser, number, tables_folder
from analysis.results.which_manifest import find_manifest, manifest_path
from analysis.tables.sheet import Sheet, show, texts, write
from vidmae.footage.manifest import Summary, read_summary
from vidmae.runs import step_time
from vidmae.runs.gpus import GPUS, Gpu, find_gpu
from vidmae.runs.plan import make_plan
from vidmae.runs.step_time import Machine, Mfu, StepTime
from vidmae.settings.command_line import answer, with_whole_key
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import build, nearest, parse_set
from vidmae.settings.recipe import read_recipe

DEFAULT_RECIPE = "pretrain_s_vith14"
ANY_VIDEOS = 10**6  # where no manifest says how many: a step does not depend on it
MILLION = 1e6
DIGITS = {"ms": 3, "adds_ms": 3, "clips_per_s_per_gpu": 2, "step_ms": 3, "gpu_busy_pct": 1, "links_pct": 1,
          "data_wait_pct": 1, "clips_per_s": 1, "gpu_hours_per_million": 3, "wall_h": 2}
"""Of the columns of the CSV files."""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--recipe", default=DEFAULT_RECIPE, metavar="NAME|FILE",
                      help="recipe in vidmae/recipes, or a .yaml (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of the recipe, such as data.workers=16; may be repeated")
    what.add_argument("--data", metavar="NAME|FILE",
                      help="manifest manifests/NAME.csv, or a .csv (default: the recipe's, where it is there)")
    what.add_argument("--clip-cpu-ms", type=number(0.001, 1e6, "ms"), metavar="MS",
                      help="CPU time of one clip from file to frames (default: what the manifest has)")
    where = parser.add_argument_group("machine")
    where.add_argument("--gpu", type=gpu, required=True, metavar="NAME", help="kind of GPU, such as h100 or a100")
    where.add_argument("--nodes", type=number(1, 100_000, "nodes"), default=1, metavar="N", help="default: %(default)s")
    where.add_argument("--gpus", type=number(1, 64, "GPUs per node"), default=8, metavar="N",
                       help="GPUs of each node (default: %(default)s)")
    where.add_argument("--cores", type=number(1, 1024, "cores per GPU"), default=16, metavar="N",
                       help="CPU cores for each GPU (default: %(default)s)")
    where.add_argument("--link-gbit", type=number(0.1, 1e5, "Gbit/s"), default=step_time.ASSUMED_LINK_GBIT, metavar="GBIT",
                       help="link of a node to the others, all its adapters together, Gbit/s one way (default: %(default)g)")
    where.add_argument("--mfu-pct", type=number(0.1, 100.0, "percent"), metavar="PCT",
                       help="share of the peak that arithmetic reaches (default: the measured one, else "
                            f"{100 * step_time.ASSUMED_MFU:g})")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=tables_folder, default=Path("tables/roofline"), metavar="FOLDER",
                     help="where the tables go (default: %(default)s)")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the paths")
    return parser


def gpu(text: str) -> Gpu:
    """`--gpu`: a GPU that the table of data sheets has."""
    found = find_gpu(text)
    if found is None:
        close = nearest(text.upper(), list(GPUS)) or ";"
        raise argparse.ArgumentTypeError(f"{text!r} is not known{close} known: {', '.join(GPUS)}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="nothing was computed")


def run(args: argparse.Namespace) -> int:
    """Compute, show, write."""
    config, _ = build(PretrainConfig, [read_recipe(args.recipe, PretrainConfig), *parse_set(args.set)])
    name, summary = find_summary(args.data, config)
    time = time_of(config, args, summary, args.nodes)
    others, left_out = [], []
    for nodes in sorted({*(2**i for i in range(args.nodes.bit_length())), args.nodes}):
        try:
            others.append(time_of(config, args, summary, nodes))
        except ValueError:  # the batch does not divide
            left_out.append(str(nodes))
    clips = make_plan(config, videos=summary.videos, world_size=time.machine.world_size).total_clips if summary else None
    sheets = [parts_sheet(time, config, summary, name, clips), nodes_sheet(others, left_out, clips, args.nodes)]
    files = write(sheets, args.out)
    show(sheets)
    print(json.dumps(record(time, others, name, clips)) if args.json else "\n".join(map(str, files)))
    return 0


def find_summary(given: str | None, config: PretrainConfig) -> tuple[str, Summary | None]:
    """The name of the data set, and the totals of its manifest; None where it was not asked for and is not there.

    Raises:
        ConfigError: There is no such manifest.
    """
    if given is None and not manifest_path(config.data.name).is_file():
        return config.data.name, None
    path = find_manifest(given or config.data.name)
    return path.stem, read_summary(path)


def time_of(config: PretrainConfig, args: argparse.Namespace, summary: Summary | None, nodes: int) -> StepTime:
    """The step on so many nodes.

    Raises:
        ValueError: The global batch does not divide by the GPUs.
    """
    machine = Machine(args.gpu, nodes, args.gpus, args.cores, args.link_gbit)
    plan = make_plan(config, videos=summary.videos if summary else ANY_VIDEOS, world_size=machine.world_size)
    measured = step_time.clip_cpu_ms(summary.clip_cost if summary else None, min(config.data.repeat_aug, plan.micro_batch),
                                     config.data.repeat_window)
    work = step_time.work_of(config, micro_batch=plan.micro_batch, grad_accum=plan.grad_accum,
                             clip_ms=args.clip_cpu_ms or measured, prepared=bool(summary and summary.prepared))
    given = Mfu(args.mfu_pct / 100, "--mfu-pct") if args.mfu_pct else None
    return step_time.step_time(work, machine, mfu=given)


def parts_sheet(time: StepTime, config: PretrainConfig, summary: Summary | None, name: str, clips: int | None) -> Sheet:
    """The parts of one step of one GPU."""
    work, machine, traffic = time.work, time.machine, time.traffic
    mfu_counts = time.arithmetic_s >= time.memory_s
    link = f", {machine.link_gbit:g} Gbit/s" if machine.nodes > 1 else ""
    data = f"{work.clip_cpu_ms:.3g} ms a clip, {time.readers} of {machine.cores_per_gpu} cores" if work.clip_cpu_ms else \
        "CPU time of a clip not measured"
    cores = step_time.update_cores(work, machine)
    host = f"{time.offload.gigabytes:.2f} GB by {machine.gpu.host_gb_s:g} GB/s, {cores} cores"
    parts = pd.DataFrame([
        ("arithmetic", f"{100 * time.mfu.share:.3g} % of {machine.gpu.peak_tflops:g} TFLOP/s, {_kind(time)}",
         time.arithmetic_s, time.arithmetic_s if mfu_counts else 0.0),
        ("memory", f"{machine.gpu.memory_gb_s:,.0f} GB/s; an MFU includes it", time.memory_s,
         0.0 if mfu_counts else time.memory_s),
        ("links", f"ZeRO {work.zero_stage}, {traffic.gigabytes:.2f} GB{link}", traffic.reduce_s + traffic.gather_s,
         traffic.exposed_s),
        *([("offload", host, time.offload.whole_s, time.offload.exposed_s)] if work.offload else []),
        ("data", data, time.data_s, None if time.data_s is None else time.step_s - time.gpu_s),
        ("step", f"{work.micro_batch} clips x {work.grad_accum} on each of {machine.world_size} GPUs", time.step_s,
         time.step_s)], columns=["part", "from", "ms", "adds_ms"]).astype({"ms": float, "adds_ms": float})
    parts[["ms", "adds_ms"]] *= 1000
    parts["clips_per_s_per_gpu"] = 1000 * work.clips / parts["ms"].where(parts["ms"] > 0)
    shown = pd.DataFrame({"PART": parts["part"], "FROM": parts["from"], "MS": texts(parts["ms"], ",.1f"),
                          "ADDS": texts(parts["adds_ms"], ",.1f"), "CLIPS/S": texts(parts["clips_per_s_per_gpu"], ",.0f")})
    title = f"One step of {config.name} on {machine.nodes} x {machine.gpus_per_node} {machine.gpu.name}"
    return Sheet("roofline", title, shown, 2, parts.round(DIGITS), footer(time, config, summary, name, clips))


def footer(time: StepTime, config: PretrainConfig, summary: Summary | None, name: str, clips: int | None) -> list[str]:
    """The sentences below the parts: clips, the slowest part, cost, and what is assumed."""
    per_million = time.gpu_hours(MILLION)
    cost = f"cost: {per_million:,.2f} GPU-hours per million clips"
    cost += f", {time.gpu_hours(clips):,.1f} for all {clips:,}" if clips else ""
    note = step_time.other_clip(summary.clip_cost, config) if summary and summary.clip_cost else ""
    return [step_time.data_line(time, name), *([note] if note else []),
            f"slowest: {time.slowest}: {step_time.advice(time, name)}", cost, f"MFU {time.mfu.source}",
            f"memory and links: {100 * step_time.REACHED:g} % of what their data sheets say is assumed to be reached",
            *([step_time.offload_line(time)] if time.work.offload else [])]


def nodes_sheet(times: Sequence[StepTime], left_out: Sequence[str], clips: int | None, asked: int) -> Sheet:
    """The same recipe on other numbers of nodes."""
    frame = pd.DataFrame([{
        "nodes": t.machine.nodes, "gpus": t.machine.world_size, "micro_batch": t.work.micro_batch,
        "grad_accum": t.work.grad_accum, "step_ms": 1000 * t.step_s,
        "gpu_busy_pct": 100 * max(t.arithmetic_s, t.memory_s) / t.step_s,
        "links_pct": 100 * t.traffic.exposed_s / t.step_s, "data_wait_pct": 100 * t.wait,
        "clips_per_s": t.work.clips * t.machine.world_size / t.step_s, "gpu_hours_per_million": t.gpu_hours(MILLION),
        "wall_h": t.gpu_hours(clips) / t.machine.world_size if clips else None} for t in times])
    shown = pd.DataFrame({
        "NODES": frame["nodes"].map(str), "GPUS": frame["gpus"].map(str),
        "BATCH": frame["micro_batch"].map(str) + " x " + frame["grad_accum"].map(str), "MS": texts(frame["step_ms"], ",.1f"),
        "LINKS": texts(frame["links_pct"], ".0f") + " %", "WAIT": texts(frame["data_wait_pct"], ".0f") + " %",
        "CLIPS/S": texts(frame["clips_per_s"], ",.0f"), "GPU-H/M": texts(frame["gpu_hours_per_million"], ",.2f"),
        "WALL_H": texts(frame["wall_h"], ",.1f")})
    notes = ["GPU-H/M: GPU-hours per million clips; LINKS and WAIT: shares of a step in which GPUs wait for them."]
    if left_out:
        notes.append(f"The global batch does not divide by the GPUs of {', '.join(left_out)} nodes.")
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    bold.loc[[t.machine.nodes == asked for t in times]] = True
    return Sheet("nodes", "The same global batch on other numbers of nodes", shown, 0, frame.round(DIGITS), notes, bold)


def record(time: StepTime, others: Sequence[StepTime], name: str, clips: int | None) -> dict[str, Any]:
    """All numbers as JSON; seconds are those of one step."""
    return {
        "gpu": asdict(time.machine.gpu), "nodes": time.machine.nodes, "gpus_per_node": time.machine.gpus_per_node,
        "cores_per_gpu": time.machine.cores_per_gpu, "link_gbit": time.machine.link_gbit, "model": time.work.shape.name,
        "data": name, "clip_cpu_ms": time.work.clip_cpu_ms, "mfu": time.mfu.share, "mfu_source": time.mfu.source,
        **_numbers(time), "slowest": time.slowest, "advice": step_time.advice(time, name), "clips": clips,
        "gpu_hours": time.gpu_hours(clips) if clips else None,
        "other_nodes": [{"nodes": t.machine.nodes, **_numbers(t)} for t in others]}


def _numbers(time: StepTime) -> dict[str, Any]:
    return {"micro_batch": time.work.micro_batch, "grad_accum": time.work.grad_accum, "arithmetic_s": time.arithmetic_s,
            "memory_s": time.memory_s, "reduce_s": time.traffic.reduce_s, "gather_s": time.traffic.gather_s,
            "links_exposed_s": time.traffic.exposed_s, "offload_exposed_s": time.offload.exposed_s, "data_s": time.data_s,
            "gpu_s": time.gpu_s, "step_s": time.step_s, "data_wait": time.wait,
            "fed_clips_per_s_per_gpu": time.fed_clips_per_s, "wanted_clips_per_s_per_gpu": time.wanted_clips_per_s,
            "gpu_hours_per_million_clips": time.gpu_hours(MILLION)}


def _kind(time: StepTime) -> str:
    return time.mfu.source.partition(" ")[0].rstrip(":")


if __name__ == "__main__":
    sys.exit(main())
