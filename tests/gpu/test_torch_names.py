"""The kit runs with torch 2.11, which is older than the one that the tests run with: it may use no name that came later."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("vidmae", "tests/gpu", "tests/bench/peers/textbook.py", "tests/support/interruptions.py", "tests/support/programs/poison.py")


def used() -> set[str]:
    """Every dotted name of torch in the code that runs on a machine of the kit."""
    found: set[str] = set()
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if "bundle" not in file.parent.parts:
                found |= names_in(ast.parse(file.read_text()))
    return found


def names_in(tree: ast.AST) -> set[str]:
    """Of one file: what it imports of torch, and what it takes of that by a dot."""
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "torch":
                    imported[alias.asname or "torch"] = alias.name if alias.asname else "torch"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    taken = (_dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {*imported.values(), *(".".join([imported[first], *rest]) for first, *rest in taken if first in imported)}


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def test_names_of_torch_are_in_2_11() -> None:
    """Looked up in the files of the wheel torch 2.11.0. A new one: look it up in the documentation of 2.11, and add it here."""
    new = {name.removeprefix("torch.") for name in used()} - {"torch", *KNOWN.split()}
    assert not new, "not known to be in torch 2.11 (tests/gpu/test_torch_names.py)"


def test_names_are_found_however_they_are_written() -> None:
    written = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\nF.gelu(x)\nnn.init.zeros_(torch.ops.aten.mm.default(y).mean())\n"
    assert names_in(ast.parse(written)) == {
        "torch", "torch.nn.functional", "torch.nn", "torch.nn.functional.gelu", "torch.nn.init", "torch.nn.init.zeros_", "torch.ops",
        "torch.ops.aten", "torch.ops.aten.mm", "torch.ops.aten.mm.default"}


KNOWN = """
Generator _dynamo.utils.counters OutOfMemoryError Size Tensor UntypedStorage UntypedStorage._new_shared __version__ _functorch.config
_functorch.config.ban_recompute_materialized_backward arange argsort autocast autograd autograd.DeviceType
autograd.DeviceType.CPU autograd.DeviceType.CUDA autograd.Function autograd.graph.saved_tensors_hooks backends
backends.cuda backends.cuda.enable_cudnn_sdp backends.cuda.enable_flash_sdp backends.cuda.enable_math_sdp
backends.cuda.enable_mem_efficient_sdp backends.cuda.matmul backends.cuda.matmul.allow_tf32 backends.cudnn
backends.cudnn.allow_tf32 bfloat16 bool cat clone compile compiler compiler.cudagraph_mark_step_begin
compiler.is_compiling compiler.reset cuda cuda.Event cuda.Stream cuda._sleep cuda.current_stream cuda.device_count
cuda.empty_cache cuda.get_device_name cuda.get_device_properties cuda.is_available cuda.max_memory_allocated
cuda.mem_get_info cuda.memory_reserved cuda.nccl cuda.nccl.version cuda.reset_peak_memory_stats cuda.set_device
cuda.stream cuda.synchronize device distributed distributed.DistError distributed.HashStore
distributed.all_gather_object distributed.all_reduce distributed.barrier distributed.broadcast_object_list
distributed.destroy_process_group distributed.init_process_group distributed.is_initialized distributions
distributions.Beta double dtype einsum empty equal eye float16 float32 float64 from_numpy get_autocast_dtype inf
inference_mode meshgrid unsqueeze int64 is_autocast_enabled is_grad_enabled load manual_seed minimum mm nn nn.Conv3d nn.Dropout nn.GELU
nn.GroupNorm nn.LayerNorm nn.Linear nn.Module nn.ModuleList nn.Parameter nn.Sequential nn.attention nn.attention.SDPBackend
nn.attention.SDPBackend.CUDNN_ATTENTION nn.attention.SDPBackend.EFFICIENT_ATTENTION
nn.attention.SDPBackend.FLASH_ATTENTION nn.attention.SDPBackend.MATH nn.attention.sdpa_kernel nn.functional
nn.functional.adaptive_avg_pool3d nn.functional.cross_entropy nn.functional.embedding nn.functional.gelu
nn.functional.interpolate nn.functional.linear nn.functional.mse_loss nn.functional.one_hot nn.functional.relu
nn.functional.scaled_dot_product_attention nn.init nn.init.kaiming_normal_ nn.init.trunc_normal_ nn.init.uniform_ nn.init.xavier_uniform_
nn.init.zeros_ nn.utils nn.utils.clip_grad_norm_ nn.utils.get_total_norm no_grad optim optim.AdamW optim.lr_scheduler
optim.lr_scheduler.CosineAnnealingLR profiler.ProfilerActivity profiler.ProfilerActivity.CPU
profiler.ProfilerActivity.CUDA profiler.profile rand randint randn randn_like random random.fork_rng save
serialization serialization.get_unsafe_globals_in_checkpoint serialization.safe_globals serialization.set_crc32_options set_num_threads stack tensor uint8
use_deterministic_algorithms utils utils.checkpoint.checkpoint utils.data.DataLoader utils.data.Dataset
utils.data.get_worker_info utils.deterministic utils.deterministic.fill_uninitialized_memory
distributed.all_gather_into_tensor distributed.irecv distributed.isend distributed.new_group export export.Dim export.Dim.AUTO export.export export.load export.save full_like nn.functional.l1_loss nn.functional.layer_norm nn.functional.smooth_l1_loss
cumsum distributed.ReduceOp distributed.ReduceOp.MIN frombuffer
utils.tensorboard.SummaryWriter var_mean version version.cuda where zeros zeros_like
distributed.P2POp distributed.ReduceOp distributed.ReduceOp.MAX distributed.batch_isend_irecv distributed.irecv distributed.isend
empty_like int32 ones ones_like version.hip
cuda._is_in_bad_fork distributed.PrefixStore distributed.TCPStore distributed.elastic.agent.server.api.RunResult
distributed.elastic.agent.server.api.WorkerGroup distributed.elastic.agent.server.api.WorkerSpec
distributed.elastic.agent.server.api.WorkerState distributed.elastic.agent.server.api.WorkerState.FAILED
distributed.elastic.agent.server.api.WorkerState.HEALTHY
distributed.elastic.agent.server.local_elastic_agent.LocalElasticAgent distributed.elastic.multiprocessing.LogsDest
distributed.elastic.multiprocessing.LogsSpecs distributed.elastic.rendezvous.RendezvousHandler
distributed.elastic.rendezvous.RendezvousInfo distributed.elastic.rendezvous.RendezvousStoreInfo
distributed.elastic.rendezvous.RendezvousStoreInfo.build
"""
