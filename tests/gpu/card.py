"""The card, torch and NCCL of this machine as JSON; asked in a process that leaves the card alone afterwards."""

import json
import sys

import torch

if __name__ == "__main__":
    there = torch.cuda.is_available()
    json.dump({"torch": torch.__version__, "cuda": torch.version.cuda,
               "card": torch.cuda.get_device_name(0) if there else None,
               "card_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if there else None,
               "nccl": ".".join(map(str, torch.cuda.nccl.version())) if there else None}, sys.stdout)
