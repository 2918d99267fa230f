"""Facts about a torch module: where its embedding and output head are, evaluation mode, out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Evaluating:
    """Evaluation mode and no gradients inside, the module's own mode after."""

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        self.module, self.no_grad = module, torch.inference_mode()

    def __enter__(self) -> None:
        self.was_training = self.module.training
        if self.was_training:
            self.module.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.no_grad.__exit__(*error)
        if self.was_training:
            self.module.train()


def is_hugging_face(module: Any) -> bool:
    """Whether the module has the parts of a Hugging Face model."""
    return hasattr(module, "config") and hasattr(module, "get_output_embeddings") and hasattr(module, "base_model")


def embedding_of(module: Any) -> Any:
    """Return the input embedding: what the module says, else the first `torch.nn.Embedding`, else None."""
    if hasattr(module, "get_input_embeddings"):
        return module.get_input_embeddings()
    import torch

    return next((part for part in module.modules() if isinstance(part, torch.nn.Embedding)), None)


def output_head(module: Any) -> Any:
    """Return the output head of a Hugging Face model, else None."""
    return module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "can't allocate memory" in text


def free_memory(device: torch.device) -> None:
    """Give cached memory back."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
