"""What the data sheets say of GPUs: matrix peak, memory and its bandwidth, link to the others of a node. Stdlib only."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU; of one die where torch sees a card as two devices (MI250).

    Attributes:
        name: As the table below has it.
        peak_tflops: Dense 16-bit matrix TFLOP/s with float32 accumulation: half of a figure that is given "with sparsity".
        memory_gb_s: Bandwidth of its memory, 1e9 bytes a second.
        link_gb_s: To the other GPUs of its node, one way, 1e9 bytes a second: NVLink or Infinity Fabric, half of a figure
            for both ways; PCIe x16 where it has no other link, or one to a single neighbour.
        host_gb_s: To the memory of its host, one way: PCIe x16 of its generation, 16, 32 or 64; NVLink-C2C of a Grace.
        memory_gib: Its memory; the larger one where a name is sold with two.
        board_w: The most power that its board draws (TDP, TGP); of a Grace superchip that of CPU and GPU together, of one
            die half of a card's peak.
    """

    name: str
    peak_tflops: float
    memory_gb_s: float
    link_gb_s: float
    host_gb_s: float
    memory_gib: float
    board_w: float


# From the vendors' data sheets: peak TFLOP/s, memory GB/s, link GB/s and host GB/s one way, memory, watts. The longest name
# that fits counts; a name alone is the module (SXM) where there is also a PCIe card, and the slower memory where there are
# two.
_DATA_SHEETS = {
    "GB200": (2500.0, 8000, 900, 450, 186, 1200), "B200": (2250.0, 8000, 900, 64, 180, 1000),
    "GH200": (989.4, 4000, 450, 450, 141, 1000), "H200 NVL": (835.5, 4800, 450, 64, 141, 600),
    "H200": (989.4, 4800, 450, 64, 141, 700), "H100 PCIe": (756.5, 2000, 64, 64, 80, 350),
    "H100 NVL": (835.5, 3900, 64, 64, 94, 400), "H100": (989.4, 3350, 450, 64, 80, 700),
    "H800": (989.4, 3350, 200, 64, 80, 700), "H20": (148.0, 4000, 450, 64, 96, 400),
    "A100 80GB PCIe": (312.0, 1935, 32, 32, 80, 300), "A100 PCIe": (312.0, 1555, 32, 32, 80, 250),
    "A100 80GB": (312.0, 2039, 300, 32, 80, 400), "A100": (312.0, 1555, 300, 32, 80, 400),
    "A800": (312.0, 2039, 200, 32, 80, 400), "A40": (149.7, 696, 32, 32, 48, 300), "A30": (165.0, 933, 32, 32, 24, 165),
    "A10": (125.0, 600, 32, 32, 24, 150), "L40S": (362.05, 864, 32, 32, 48, 350), "L40": (181.05, 864, 32, 32, 48, 300),
    "L4": (121.0, 300, 32, 32, 24, 72), "V100S": (130.0, 1134, 16, 16, 32, 250), "V100 PCIe": (112.0, 900, 16, 16, 32, 250),
    "V100": (125.0, 900, 150, 16, 32, 300), "T4": (65.0, 320, 16, 16, 16, 70),
    "RTX 6000 Ada": (364.2, 960, 32, 32, 48, 300), "RTX A6000": (154.8, 768, 32, 32, 48, 300),
    "A6000": (154.8, 768, 32, 32, 48, 300), "RTX A5000": (111.1, 768, 32, 32, 24, 230),
    "A5000": (111.1, 768, 32, 32, 24, 230), "RTX 5090": (209.5, 1792, 64, 64, 32, 575),
    "RTX 4090": (165.2, 1008, 32, 32, 24, 450), "RTX 3090": (71.0, 936, 32, 32, 24, 350),
    "RTX 2080 Ti": (53.8, 616, 16, 16, 11, 250), "RTX 8000": (130.5, 672, 16, 16, 48, 260),
    "MI300X": (1307.4, 5300, 448, 64, 192, 750), "MI250X": (191.5, 1638, 50, 32, 64, 280),
    "MI250": (181.0, 1638, 50, 32, 64, 280), "MI210": (181.0, 1638, 50, 32, 64, 300),
}
GPUS = {name: Gpu(name, *numbers) for name, numbers in _DATA_SHEETS.items()}


def find_gpu(name: str) -> Gpu | None:
    """The GPU of a name.

    Args:
        name: As torch or Slurm's GRES give it, such as `NVIDIA H100 80GB HBM3`, `a100` or `rtx_4090`.
    Returns:
        What the data sheet says, or None where the table does not have it.
    """
    words = set(re.split(r"[^a-z0-9]+|(?<=rtx)(?=\d)", name.lower()))
    known = [key for key in GPUS if words.issuperset(key.lower().split())]
    return GPUS[max(known, key=len)] if known else None


def gpu_peak_tflops(name: str) -> float | None:
    """Dense 16-bit matrix peak of a GPU in TFLOP/s by its name (see `find_gpu`); None where it is not known."""
    gpu = find_gpu(name)
    return gpu.peak_tflops if gpu else None
