"""What tests/support/prefork.py loads once: no more than imports, so that no thread runs when a process is forked from it."""

import deepspeed  # noqa: F401
import pandas  # noqa: F401

import vidmae.train.cell
import vidmae.train.pretrain  # noqa: F401
