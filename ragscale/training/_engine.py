"""The model at work: forward, backward, update, and its state in and out; on one device, replicated, or sharded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import nn

from ragscale.errors import ConfigError
from ragscale.training._attention import document_mask, use_ragscale_attention
from ragscale.training._capture import CapturedStep
from ragscale.training._compile import compile_decoder, compiling, eagerly, worth_capturing
from ragscale.training._config import TrainConfig
from ragscale.training._dry_run import peak_flops
from ragscale.training._loss import linear_cross_entropy
from ragscale.training._memory import SHARD_FROM, activation_bytes
from ragscale.training._model import ModelConfig
from ragscale.training._processes import Processes


def resolve_precision(config: TrainConfig, model: ModelConfig, device: torch.device) -> str:
    """Return the precision, and for "auto" what it means on this device: "bf16" or "fp32"."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
    # below this width the casts cost more than the products save
    return "bf16" if fast and model.d_model >= 64 else "fp32"


class _WithLoss(nn.Module):
    """The model with the loss head inside, so that replication and sharding see one module."""

    def __init__(self, model: Any, z_loss: float, compute_type: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self.z_loss = z_loss
        self.compute_type = compute_type

    def forward(
        self, inputs: torch.Tensor, targets: torch.Tensor, documents: Any, n_targets: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        extra = {} if documents is None else {"documents": documents}
        hidden = self.model.model(input_ids=inputs, use_cache=False, **extra).last_hidden_state
        if self.compute_type is not None:
            hidden = hidden.to(self.compute_type)
        return linear_cross_entropy(hidden, self.model.lm_head.weight, targets, z_loss=self.z_loss, n_targets=n_targets)


class Engine:
    """A model, its optimiser, and one step of both.

    Parameters
    ----------
    model : ModelConfig
    config : TrainConfig
        Complete, with the precision resolved.
    processes : Processes
    """

    def __init__(self, model: ModelConfig, config: TrainConfig, processes: Processes) -> None:
        self._config, self._processes = config, processes
        self.device = processes.device
        assert config.batch_tokens is not None
        self.batch_rows = config.batch_tokens // config.seq_len
        if self.batch_rows % processes.world:
            fit = -(-self.batch_rows // processes.world) * processes.world * config.seq_len
            raise ConfigError(
                f"a batch of {self.batch_rows} rows of {config.seq_len} tokens cannot be shared by {processes.world} "
                f"processes: use batch_tokens={fit}"
            )
        capture = self._captures(model)
        # a captured step keeps its memory, and batches that are not full need theirs beside it
        share = 0.3 if capture else 0.7
        self.micro_rows = _micro_rows(model, config, self.batch_rows // processes.world, self.device, share)
        sharded = config.parallel == "fsdp" or (config.parallel == "auto" and model.n_params_total >= SHARD_FROM)
        self._sharded = sharded and processes.world > 1
        self._replicated = processes.world > 1 and not self._sharded and config.parallel != "none"
        if processes.world > 1 and config.parallel == "none":
            raise ConfigError(
                f"parallel='none' with {processes.world} processes would train {processes.world} separate copies: "
                "use 'auto', 'ddp' or 'fsdp', or start one process"
            )
        self._autocast = config.precision == "bf16"
        if config.precision == "bf16-true" or (self._autocast and self._sharded and self.device.type == "cuda"):
            compute_type = None
        else:
            compute_type = torch.bfloat16 if self._autocast else None
        hf_model: Any = model.build(seed=config.seed, eos_token_id=config.eos_id)
        use_ragscale_attention(hf_model)
        whole = {"bf16-true": torch.bfloat16, "fp64": torch.float64}.get(config.precision)
        if whole is not None:
            hf_model.to(whole)
        hf_model.to(self.device)
        hf_model.train()
        if config.activation_checkpointing:
            # transformers 5.23 renamed it
            new = getattr(hf_model, "activation_checkpointing_enable", None)
            if new is not None:
                new(activation_checkpointing_kwargs={"use_reentrant": False})
            else:
                hf_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._compiled = self.device.type == "cuda" if config.compile is None else bool(config.compile)
        self._n_steps = 0
        if self._compiled and not self._sharded:
            compile_decoder(hf_model.model, stack=config.compile == "stack")
        self._module = _WithLoss(hf_model, config.z_loss, compute_type)
        self._run: Any = self._module
        if self._sharded:
            self._shard(hf_model)
        elif self._replicated:
            self._run = nn.parallel.DistributedDataParallel(
                self._module, device_ids=[self.device.index] if self.device.type == "cuda" else None
            )
        # the optimiser works on what this process holds: the parameters, or its shards of them
        self._parameters = dict(self._module.model.named_parameters())
        self._locals = {name: _local(parameter.detach()) for name, parameter in self._parameters.items()}
        decayed = {name for name, p in self._parameters.items() if p.ndim > 1 and "embed_tokens" not in name}
        matrices = [tensor for name, tensor in self._locals.items() if name in decayed]
        others = [tensor for name, tensor in self._locals.items() if name not in decayed]
        assert config.learning_rate is not None
        assert config.betas is not None
        # matrices first: their rate and decay may depend on the width
        self._shares, decay = (1.0, 1.0), config.weight_decay
        if config.transfer is not None:
            assert config.base_width is not None
            width = model.d_model / config.base_width
            self._shares, decay = (1 / width, 1.0), config.weight_decay * width**0.5
        # a recorded step reads its rates from the device
        starts = [config.learning_rate * share for share in self._shares]
        self._rates = [torch.tensor(rate, device=self.device) for rate in starts] if capture else None
        self._optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "weight_decay": own_decay, "lr": rate}
                for parameters, own_decay, rate in zip(
                    (matrices, others), (decay, 0.0), self._rates or starts, strict=True
                )
            ],
            betas=config.betas,
            eps=config.eps,
            fused=True,
            capturable=capture,
        )
        full = self.batch_rows * config.seq_len
        self.captured = CapturedStep(self._whole_step, self._changed_tensors, full) if capture else None
        # FlexAttention is fast where it is compiled, and holds all scores where it is not
        self._flex = self._compiled and self.device.type == "cuda"

    def _captures(self, model: ModelConfig) -> bool:
        """Return whether steps are captured: asked for or worth it, and always the same kernels on one CUDA device."""
        config = self._config
        if self.device.type != "cuda" or self._processes.world > 1 or config.cuda_graph is False:
            return False
        if config.cuda_graph is None:
            # a resumed run takes some steps as usual where a whole one replays them
            return not config.deterministic and worth_capturing(model, config, peak=peak_flops(self.device))
        return not config.document_mask and not config.activation_checkpointing

    def _changed_tensors(self) -> list[torch.Tensor]:
        moments = [tensor for state in self._optimizer.state.values() for tensor in state.values()]
        return [*self._locals.values(), *moments]

    def _shard(self, hf_model: Any) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mixed = self._autocast and self.device.type == "cuda"
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if mixed else None
        options: dict[str, Any] = {} if policy is None else {"mp_policy": policy}
        if self._compiled:
            compile_decoder(hf_model.model, stack=False)
        for layer in hf_model.model.layers:
            fully_shard(layer, **options)
        fully_shard(self._module, **options)

    def step(self, inputs: torch.Tensor, targets: torch.Tensor, n_targets: int, rate: float) -> torch.Tensor:
        """Do one optimiser step on this process's rows; return (cross-entropy, gradient norm, skipped) on the device.

        A step whose loss or gradient is not finite changes nothing. Nothing here waits for the device.
        """
        for at, group in enumerate(self._optimizer.param_groups):
            if self._rates is None:
                group["lr"] = rate * self._shares[at]
            else:
                self._rates[at].fill_(rate * self._shares[at])
        # later steps have the shapes of the first ones
        first, self._n_steps = self._n_steps < 3, self._n_steps + 1
        with compiling() if self._compiled and first else contextlib.nullcontext():
            return (self.captured or self._whole_step)(inputs, targets, n_targets)

    def _whole_step(self, inputs: torch.Tensor, targets: torch.Tensor, n_targets: int) -> torch.Tensor:
        rows = inputs.shape[0]
        # gradients are averaged over processes, so each divides by its share of the targets
        share = n_targets / self._processes.world
        cross_entropy = torch.zeros((), device=self.device)
        for start in range(0, rows, self.micro_rows):
            last = start + self.micro_rows >= rows
            ids = inputs[start : start + self.micro_rows]
            with self._accumulating(not last):
                with self._arithmetic():
                    loss, part = self._run(
                        ids, targets[start : start + self.micro_rows], self._documents(ids, self._flex), share
                    )
                loss.backward()
            cross_entropy += part
        if self._processes.world > 1:
            torch.distributed.all_reduce(cross_entropy)
            cross_entropy /= self._processes.world
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            self._locals[name].grad = None if gradient is None else _local(gradient)
        norm = self._gradient_norm()
        skipped = (~torch.isfinite(norm + cross_entropy)).float()
        # the fused kernel divides gradients by grad_scale and leaves everything alone when found_inf is 1
        told: Any = self._optimizer
        told.grad_scale = (norm / self._config.clip_norm).clamp(min=1.0)
        told.found_inf = skipped
        self._optimizer.step()
        for name, parameter in self._parameters.items():
            parameter.grad = None
            self._locals[name].grad = None
        return torch.stack([cross_entropy, norm, skipped])

    @torch.no_grad()
    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, int]:
        """Return the summed cross-entropy of this process's rows and the number of their targets; never compiled."""
        total, count = 0.0, int((targets >= 0).sum())
        for start in range(0, inputs.shape[0], self.micro_rows):
            ids = inputs[start : start + self.micro_rows]
            with self._arithmetic(), eagerly() if self._compiled else contextlib.nullcontext():
                _, part = self._run(ids, targets[start : start + self.micro_rows], self._documents(ids, False), 1.0)
            total += float(part)
        if self._sharded:
            # without a backward pass the gathered weights would stay, and go stale when others are loaded
            self._run.reshard()
        return total, count

    def _documents(self, ids: torch.Tensor, flex: bool) -> Any:
        if not self._config.document_mask:
            return None
        assert self._config.eos_id is not None
        return document_mask(ids, self._config.eos_id, flex=flex)

    def _arithmetic(self) -> Any:
        if not self._autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @contextlib.contextmanager
    def _accumulating(self, more: bool) -> Generator[None]:
        if more and self._replicated:
            with self._run.no_sync():
                yield
        else:
            yield

    def _gradient_norm(self) -> torch.Tensor:
        gradients = [tensor.grad for tensor in self._locals.values() if tensor.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._sharded:
            square = norm.square()
            torch.distributed.all_reduce(square)
            norm = square.sqrt()
        return norm.float()

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the whole weights on the CPU, under transformers' names; every process must call this."""
        return {name: _whole(parameter.detach()) for name, parameter in self._parameters.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Return weights and optimiser state, whole and on the CPU; every process must call this."""
        tensors = {f"model.{name}": tensor for name, tensor in self.weights().items()}
        for name, parameter in self._parameters.items():
            state = self._optimizer.state.get(self._locals[name])
            if state:
                for key in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{key}.{name}"] = _whole(_like(state[key], parameter))
                tensors[f"step.{name}"] = state["step"].detach().cpu().clone()
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `state` returned, whatever the number of processes was then.

        Tensors that exist are written into, because a recorded step knows them by their place.
        """
        for name, parameter in self._parameters.items():
            _local(parameter.detach()).copy_(self._part(tensors[f"model.{name}"], parameter))
            known = self._optimizer.state.get(self._locals[name])
            if f"step.{name}" in tensors:
                moments = {
                    "step": tensors[f"step.{name}"].clone().to(self.device),
                    "exp_avg": self._part(tensors[f"exp_avg.{name}"], parameter),
                    "exp_avg_sq": self._part(tensors[f"exp_avg_sq.{name}"], parameter),
                }
                if known:
                    for key, value in moments.items():
                        known[key].copy_(value)
                else:
                    self._optimizer.state[self._locals[name]] = moments
            elif known:
                for value in known.values():
                    value.zero_()

    def _part(self, whole: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        if not self._sharded:
            return whole.to(self.device, copy=True)
        from torch.distributed.tensor import distribute_tensor

        placed: Any = parameter
        return distribute_tensor(whole.to(self.device), placed.device_mesh, placed.placements).to_local().clone()

    def to_device(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Move a batch to the device; from pinned memory and without waiting on CUDA."""
        tensors = (torch.from_numpy(inputs), torch.from_numpy(targets))
        if self.device.type == "cuda":
            tensors = tuple(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in tensors)
        return tensors[0], tensors[1]


def _local(tensor: Any) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu().clone()


def _like(local: torch.Tensor, parameter: Any) -> Any:
    """Return a shard of the optimiser's state as the distributed tensor that its parameter is."""
    if not hasattr(parameter, "device_mesh"):
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


def _micro_rows(model: ModelConfig, config: TrainConfig, rows: int, device: torch.device, share: float) -> int:
    """Return the rows per forward pass: the largest divisor of a process's rows within the limit."""
    if config.micro_batch_tokens is not None:
        limit = max(1, config.micro_batch_tokens // config.seq_len)
    elif device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] - 16 * model.n_params_total
        limit = max(1, int(share * free / (activation_bytes(model, config) * config.seq_len)))
    else:
        limit = max(1, 16_384 // config.seq_len)
    return max(divisor for divisor in range(1, rows + 1) if rows % divisor == 0 and divisor <= limit)
