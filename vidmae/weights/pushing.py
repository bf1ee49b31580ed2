"""Send an exported folder to the hub, after it was shown what would be sent.

A token is taken from where huggingface_hub keeps it, and never shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vidmae.weights.hub import hub_library, offline

KINDS = ("*.safetensors", "*.pth", "*.pt2", "config.json", "preprocessor_config.json", "README.md")
"""What an export may have; nothing else is sent."""


def files_to_send(folder: Path) -> list[Path]:
    """The files of an exported folder.

    Raises:
        ValueError: It is none: it has no model card, no weights, or other files besides.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; python jobs/weights.py export makes one")
    known = sorted({file for kind in KINDS for file in folder.glob(kind)})
    others = sorted(file.name for file in folder.iterdir() if file not in known)
    weights = [file for file in known if file.suffix in (".safetensors", ".pth", ".pt2")]
    if others:
        raise ValueError(f"{folder} has {len(others)} files that no export has, such as {others[0]}; push sends an export "
                         "alone")
    if not weights or folder / "README.md" not in known:
        raise ValueError(f"{folder} has no {'weights' if not weights else 'model card (README.md)'}; python jobs/weights.py "
                         "export makes such a folder")
    return known


def push(folder: Path, repo: str, *, public: bool, agreed: Callable[[str], bool]) -> str:
    """Create the repository if need be, and upload a folder.

    Args:
        folder: From `exporting.export`.
        repo: `owner/name`.
        public: Whether everybody may see it, where it is new.
        agreed: Asked once, with all that will be sent in words.
    Returns:
        The address; empty where it was not agreed.
    Raises:
        ValueError: The folder is no export, the name is none, or the hub cannot be reached or refuses; the message has no
            address with a token in it.
    """
    files = files_to_send(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"{repo!r} is not of the form owner/name")
    hub = hub_library()
    if hub is None:
        raise ValueError("huggingface_hub is not installed: pip install huggingface_hub")
    if offline():
        raise ValueError("HF_HUB_OFFLINE forbids it; unset it")
    listed = "\n".join(f"  {file.name}  {file.stat().st_size / 2**20:,.1f} MiB" for file in files)
    seen = "everybody can see" if public else "only you can see where it is new"
    if not agreed(f"To https://huggingface.co/{repo}, which {seen}:\n{listed}"):
        return ""
    try:
        api = hub.HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder), allow_patterns=[file.name for file in files],
                          commit_message="Weights and model card")
    except Exception as error:  # each version of the library has another transport; a text may hold a signed address
        status = getattr(getattr(error, "response", None), "status_code", "")
        raise ValueError(f"the hub did not take it ({type(error).__name__}{f', status {status}' if status else ''}); is "
                         "there a token that may write (hf auth login)?") from None
    return f"https://huggingface.co/{repo}"
