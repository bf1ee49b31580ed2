"""Before the first step: every node checks itself, all at once and in seconds; bad ones are named, or left out of the job.

    gather who is where -> measure in parallel -> gather once -> the same verdict on every rank
                        -> a speed that is too low is measured once more -> checks.jsonl, the log, left_out.jsonl

On one rank without a GPU there is nothing to compare with: only its folders are looked at, and only what is wrong is noted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median

import torch

from vidmae.ranks import kernels
from vidmae.ranks.dist import Ranks
from vidmae.ranks.health.folder_checks import FolderChecks, folders_of
from vidmae.ranks.health.node_facts import RankFacts
from vidmae.ranks.health.node_measures import FailingGpuError, measure, measure_speeds
from vidmae.ranks.health.node_verdicts import Decision, Finding, better, decide, judge
from vidmae.ranks.program import LeaveError, LostNodeError
from vidmae.runs.nodes.check_log import note_checks
from vidmae.runs.nodes.left_out import leave_out_node, node_name, nodes_left_out
from vidmae.runs.record import RunFolder, job_id
from vidmae.settings.config import RunConfig

SHOWN = 8  # findings in the log; checks.jsonl has all


class UnfitNodesError(Exception):
    """Nodes are too slow or wrong, and the job cannot be requeued without them."""


def check_nodes(run: RunFolder, config: RunConfig, ranks: Ranks) -> None:
    """Check all nodes of the job, as `recovery.checks` says. Collective.

    Raises:
        LeaveError: Bad nodes are noted in left_out.jsonl, and the job leaves to be requeued without them.
        LostNodeError: The GPU of this rank fails; its node is noted.
        FailingGpuError: The GPU of this rank fails, and its node stays: `warn`, or it was left out before.
        UnfitNodesError: Bad nodes may not be used, and cannot be left out.
    """
    mode = config.recovery.checks or "off"
    if mode == "off":
        return
    began = time.monotonic()
    kernels.set_numerics(ranks.device, deterministic=config.train.deterministic)  # before the first product on a GPU
    nodes = ranks.gather(node_name())

    def folders() -> FolderChecks | None:
        first = nodes.index(nodes[ranks.rank]) == ranks.rank
        return FolderChecks(folders_of(run, config.data.stage), speed=len(set(nodes)) > 1) if first else None

    before = nodes_left_out(run, job_id())

    def measured(how: Callable[[], RankFacts]) -> RankFacts:
        node = nodes[ranks.rank]
        leaves = ranks.device.type == "cuda" and mode == "enforce" and node not in before
        try:
            facts = how()
            problem = facts.problem
        except FailingGpuError as error:
            if not leaves:
                raise
            problem = str(error)
        if problem and leaves:
            leave_out_node(run, node, f"rank {ranks.rank}: {problem}")  # a GPU that fails gathers nothing any more
            raise LostNodeError(f"{node} is left out: {problem}")
        return facts

    mine = measured(lambda: measure(ranks, nodes, folders))
    found = ranks.gather(mine)
    findings = judge(found)
    if ranks.from_main(any(finding.speed for finding in findings)):
        found = better(found, ranks.gather(measured(lambda: measure_speeds(ranks, nodes, mine, folders))))
        findings = judge(found)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)  # peak_gib is that of the training
    decision = None
    if ranks.is_main:
        decision = decide(findings, list(dict.fromkeys(nodes)), enforce=mode == "enforce",
                          before=list(before), requeues="SLURM_JOB_ID" in os.environ)
        _tell(run, mode, found, findings, decision, time.monotonic() - began)
    decision = ranks.from_main(decision)
    if decision.action == "requeued":
        raise LeaveError(decision.why)
    if decision.action == "failed":
        raise UnfitNodesError(f"checks before the first step: {decision.why}; {'; '.join(_lines(findings))}")


def _tell(run: RunFolder, mode: str, found: Sequence[RankFacts], findings: Sequence[Finding], decision: Decision,
          took_s: float) -> None:
    """Rank 0 writes the record and the log, and notes the nodes that are left out."""
    nodes = len({each.node for each in found})
    alone = len(found) == 1 and found[0].gpu is None
    if not alone or findings:
        of_nodes = [{"node": each.node, **asdict(each.of_node)} for each in found if each.of_node]
        of_ranks = [{key: value for key, value in asdict(each).items() if key != "of_node"} for each in found]
        note_checks(run, {"mode": mode, "seconds": round(took_s, 3), "nodes": of_nodes, "ranks": of_ranks,
                          "findings": [asdict(finding) for finding in findings],
                          "left_out": list(decision.nodes) if decision.action == "requeued" else [],
                          "action": decision.action, "why": decision.why})
    print(f"checks of {nodes} node{'s' if nodes > 1 else ''} in {took_s:.1f} s: {in_short(found)}"
          f"{'' if findings else '; nothing is wrong'}", flush=True)
    for line in _lines(findings):
        print(f"checks: {line}", flush=True)
    if decision.action == "requeued":
        for node in decision.nodes:
            reasons = [finding.text for finding in findings if finding.node == node and finding.blames]
            leave_out_node(run, node, "; ".join(reasons))


def _lines(findings: Sequence[Finding]) -> list[str]:
    lines = [f"{finding.node}: {finding.text}" for finding in findings[:SHOWN]]
    return lines + ([f"and {len(findings) - SHOWN} more in checks.jsonl"] if len(findings) > SHOWN else [])


def in_short(found: Sequence[RankFacts]) -> str:
    """Medians over the ranks of what was measured, and room in the run folder, for the log."""
    speeds = {"matrix product {:.3g} TFLOP/s": [each.product_tflops for each in found],
              "memory {:.3g} GB/s": [each.memory_gb_s for each in found],
              "all-reduce {:.3g} GB/s": [each.whole_gb_s for each in found],
              "links inside nodes {:.3g} GB/s": [each.inside_gb_s for each in found],
              "links between nodes {:.3g} GB/s": [max(each.across_gb_s.values(), default=None) for each in found]}
    said = [text.format(median(known)) for text, values in speeds.items() if (known := [v for v in values if v is not None])]
    said += list(dict.fromkeys(each.gpu.nvml for each in found if each.gpu and each.gpu.nvml))
    free = [folder.free_gib for each in found if each.of_node for folder in each.of_node.folders
            if folder.what == "run" and folder.free_gib is not None]
    return ", ".join([*said, *([f"{min(free):.1f} GiB free for the run"] if free else [])]) or "no numbers"
