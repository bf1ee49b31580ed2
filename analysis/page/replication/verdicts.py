"""The page of a replication: what each claim came to, with effect, interval and cost. `make replicate` calls it.

    python analysis/page/replication/verdicts.py replicate/small

Reads OUT/replication.json and the seeds that are done, and writes OUT/page.html, OUT/verdicts.json and OUT/verdicts.md (the
two tables of a README). Claims are those of claims.py; the page says whether the file is that of the first call. Standard
output is the page.

Exit codes: 0 ok, whatever the verdicts; 2 no replication, or no seed is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import analysis  # noqa: F401  it says which library is missing

import numpy as np

from analysis.page.html import to_html
from analysis.page.replication.claims import BESIDE, CLAIMS, Claim, Part, verdict_of, verdict_of_all
from analysis.page.replication.evidence import Evidence, read_evidence
from analysis.page.replication.provenance import calls_said, claims_said, units_said
from analysis.page.replication.two_level import Effect
from analysis.page.wording import duration, moment
from analysis.results.table_flags import Parser
from vidmae.runs.record import write_atomic, write_json
from vidmae.settings.command_line import text_of

PAGE, RECORD, TABLES = "page.html", "verdicts.json", "verdicts.md"
TASKS = {"actions": "actions", "motion": "motions of the camera", "pictures": "pictures", "corrupted": "corrupted pictures"}
MODELS = {"video": "video model", "image": "its image model", "shuffled": "trained on shuffled frames",
          "scratch": "random weights", "scratch-image": "random weights, one frame"}


@dataclass(frozen=True)
class Judged:
    """A claim and what came of it.

    Attributes:
        claim: From claims.py.
        effects: Of each part; None where it was not tested.
        verdicts: Of each part.
        verdict: Of the claim.
        cost: CPU seconds of all that the claim needs, what other claims need, too, included.
    """

    claim: Claim
    effects: list[Effect | None]
    verdicts: list[str]
    verdict: str
    cost: float


def judge(evidence: Evidence) -> list[Judged]:
    """What the seeds that are done say of every claim."""
    found = []
    for claim in CLAIMS:
        effects = [evidence.effect(part) for part in claim.parts]
        verdicts = [verdict_of(part, *((effect.low, effect.high) if effect else (np.nan, np.nan)))
                    for part, effect in zip(claim.parts, effects, strict=True)]
        found.append(Judged(claim, effects, verdicts, verdict_of_all(verdicts), cost_of(evidence.record, claim.key)))
    return found


def cost_of(record: Mapping[str, Any], key: str = "") -> float:
    """CPU seconds of the steps that a claim needs, or of all."""
    return float(sum(step["cpu_s"] for step in record["steps"] if not key or key in step["claims"]))


def interval_text(effect: Effect | None) -> str:
    """`5.10 [2.00, 8.20]`."""
    if effect is None:
        return "not tested"
    if np.isnan(effect.low):
        return f"{effect.value:.2f} (too few for an interval)"
    return f"{effect.value:.2f} [{effect.low:.2f}, {effect.high:.2f}]"


def smallest_text(part: Part) -> str:
    """`> 2 points`, or `within 3 points`."""
    return f"{'within' if part.alike else '>'} {part.smallest:g} {part.unit}"


def claim_rows(judged: Sequence[Judged]) -> list[list[str]]:
    """A row for each part: statement, comparison, smallest effect, effect, seeds x units, verdict, cost."""
    rows = []
    for each in judged:
        parts = zip(each.claim.parts, each.effects, each.verdicts, strict=True)
        for place, (part, effect, verdict) in enumerate(parts):
            shown = verdict if len(each.verdicts) == 1 else f"{verdict} (claim: {each.verdict})"
            rows.append(["" if place else each.claim.statement, part.name, smallest_text(part), interval_text(effect),
                         f"{effect.seeds} x {effect.units}" if effect else "--", shown,
                         "" if place else f"{each.cost / 60:.1f}"])
    return rows


def beside_rows(evidence: Evidence) -> list[list[str]]:
    """Comparisons that no claim rests on."""
    found = ((part, evidence.effect(part)) for part in BESIDE)
    return [[part.name, TASKS.get(part.task, "hidden frames"), part.unit, interval_text(effect),
             f"{effect.seeds} x {effect.units}"] for part, effect in found if effect]


def accuracy_rows(evidence: Evidence) -> list[list[str]]:
    """Accuracy of every model on every task in %: mean over seeds, and the lowest and the highest seed."""
    amounts = evidence.record["amounts"]
    names = {**MODELS, **{role: f"video model, {_share(amounts, role)} of the footage"
                          for role in amounts if role not in MODELS}}
    roles = dict.fromkeys(role for seed in evidence.seeds for role, _ in seed.right)
    rows = [[names.get(role, role), *(_accuracy(evidence, role, task) for task in TASKS)]
            for role in sorted(roles, key=list(names).index)]
    return [*rows, ["chance", *(f"{100 / evidence.seeds[0].classes[task]:.1f}" if task in evidence.seeds[0].classes else "--"
                                for task in TASKS)]]


def _share(amounts: Mapping[str, float], role: str) -> str:
    return f"{100 * amounts[role] / max(amounts.values()):.3g} %"


def _accuracy(evidence: Evidence, role: str, task: str) -> str:
    try:
        of_seeds = 100 * evidence.right(role, task).mean(axis=1)
    except KeyError:
        return "--"
    return f"{of_seeds.mean():.1f} [{of_seeds.min():.1f}, {of_seeds.max():.1f}]"


CLAIM_HEAD = ["statement", "comparison", "effect of interest", "effect, 95 % interval", "seeds x units", "verdict",
              "CPU minutes"]
BESIDE_HEAD = ["comparison", "on", "unit", "effect, 95 % interval", "seeds x units"]


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """When, where, on what, and what it cost."""
    record, wide = evidence.record, widest(evidence)
    asked, first = len(record["seeds"]), evidence.asked.get("first", {}).get("commit", record["commit"])
    return [("Scale", record["scale"]), ("Date", record["date"]), ("Machine", record["machine"]),
            ("Code", record["commit"] + ("" if first == record["commit"] else f"; at the first call {first}")),
            ("Claims", claims_said(evidence.asked)), ("Units of intervals", units_said(evidence)),
            ("Seeds", f"{len(evidence.seeds)} of {asked} done" + ("" if len(evidence.seeds) == asked else
             "; the same command goes on with the others") + calls_said(evidence.asked)),
            ("Half of the widest interval of accuracies", f"{wide:.1f} points" if wide == wide else "none is claimed"),
            ("Wall time", duration(record["wall_s"])), ("CPU time", f"{cost_of(record) / 60:.0f} minutes"),
            *record["facts"].items()]


def widest(evidence: Evidence) -> float:
    """Half of the widest interval of the claims' differences between models in points; NaN where there is none."""
    found = [effect.half_width for claim in CLAIMS for part in claim.parts if part.unit == "points"
             and part.worse != "chance" and (effect := evidence.effect(part)) and effect.half_width == effect.half_width]
    return max(found, default=float("nan"))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_page(out: Path) -> Path:
    """Judge what is done and write the page, verdicts.json and verdicts.md.

    Raises:
        ValueError: There is no replication, or no seed is done yet.
    """
    evidence = read_evidence(out)
    if not evidence.seeds:
        raise ValueError(f"{out}: no seed is done yet; the same command of replicate.py goes on")
    judged = judge(evidence)
    claims = [each for each in judged if not each.claim.control]
    controls = [each for each in judged if each.claim.control]
    tables = [("The claims", CLAIM_HEAD, claim_rows(claims)), ("Controls", CLAIM_HEAD, claim_rows(controls)),
              ("Accuracy in %: mean, lowest and highest of the seeds", ["model", *TASKS.values()], accuracy_rows(evidence)),
              ("Beside: comparisons that no claim rests on", BESIDE_HEAD, beside_rows(evidence))]
    said = claims_said(evidence.asked)
    write_json(out / RECORD, {"claims_are": said, "claims": [_record_of(each) for each in judged], "made": time.time(),
                              "seeds": [seed.number for seed in evidence.seeds]})
    texts = [f"{said[0].upper()}{said[1:]}.\n", *(f"{name}\n\n{markdown(head, rows)}" for name, head, rows in tables)]
    write_atomic(out / TABLES, "\n".join(texts).encode())
    page = to_html("replication.html", title=f"Replication, scale {evidence.record['scale']}", facts=facts(evidence),
                   verdicts=[(each.claim, each.verdict) for each in judged], tables=tables, claims=said,
                   commands=evidence.record["commands"], made=f"Made {moment(time.time())}")
    write_atomic(out / PAGE, page.encode())
    return out / PAGE


def _record_of(each: Judged) -> dict[str, Any]:
    parts = zip(each.claim.parts, each.effects, each.verdicts, strict=True)
    return {"key": each.claim.key, "verdict": each.verdict, "control": each.claim.control, "cpu_s": each.cost,
            "parts": [_part_record(*part) for part in parts]}


def _part_record(part: Part, effect: Effect | None, verdict: str) -> dict[str, Any]:
    values = {key: None if isinstance(value, float) and np.isnan(value) else value
              for key, value in asdict(effect).items()} if effect else None
    return {**asdict(part), "verdict": verdict, "effect": values}


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of a replication")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        page = write_page(args.out)
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    print((args.out / TABLES).read_text(), file=sys.stderr)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
