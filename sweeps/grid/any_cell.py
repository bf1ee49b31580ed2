"""What every cell of a grid has, whatever it does: enough to look after it, to submit it and to show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from vidmae.settings.finetune_config import FinetuneConfig


class AnyCell(Protocol):
    """A cell: `grid.Cell` learns from labelled clips, `robustness_cells.TestCell` tests one that is finished."""

    kind: ClassVar[str]
    headings: ClassVar[tuple[str, str, str, str]]

    @property
    def config(self) -> FinetuneConfig:
        """All settings."""

    @property
    def signature(self) -> str:
        """Eight hex digits; equal for equal cells."""

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each setting comes from."""

    @property
    def run_id(self) -> str:
        """Name of its run folder."""

    @property
    def tail(self) -> str:
        """The end of that name that does not depend on what the checkpoint is called."""

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What tables show of it, under `headings`; cells with equal values share a line."""

    @property
    def one_process(self) -> bool:
        """It gains nothing from several ranks."""

    @property
    def after(self) -> str:
        """Slurm job that must have succeeded before, or empty."""

    @property
    def source(self) -> str:
        """Content of what it starts from."""

    @property
    def shares(self) -> tuple[str, str, str] | None:
        """What it leaves that cells with an equal value want, too; None: nothing."""

    @property
    def amount(self) -> int:
        """How much of it there is; of cells that share, the one with most goes first."""

    def record(self, sweep: str) -> dict[str, Any]:
        """What run.json and result.json say of it as `cell`."""

    def identity(self) -> dict[str, Any]:
        """What run.json says of its data."""


class Testing:
    """What cells have in common that test what has learned already, and leave nothing for others."""

    config: FinetuneConfig
    signature: str

    @property
    def run_id(self) -> str:
        """Name of its run folder."""
        return f"{self.config.name}-{self.signature}"

    @property
    def tail(self) -> str:
        """The end of that name that does not depend on what the checkpoint is called."""
        return f"-{self.signature}"

    @property
    def after(self) -> str:
        """What it tests is there."""
        return ""

    @property
    def shares(self) -> tuple[str, str, str] | None:
        """Nothing that others would want."""
        return None
