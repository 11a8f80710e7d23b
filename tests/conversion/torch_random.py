"""Random values for reference networks in PyTorch."""

import torch


def randomized(make, seed=0):
    """Gives every tensor a value that matters: statistics, factors and biases away from where they start.

    `make()` returns the module; its kernels are PyTorch's start values for the seed.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = make()
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    fixed = {id(p) for p in module.sobel.parameters()} if hasattr(module, "sobel") else set()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.ndim == 0 or id(value) in fixed:
                continue
            if name.endswith(("running_var", "temperature")):
                value.copy_(uniform(value, 0.5, 2.0))
            elif value.ndim == 1 and not name.endswith(("bias", "running_mean")):
                value.copy_(uniform(value, 0.5, 1.5))
            elif value.ndim == 1 or name == "cls_token":
                value.copy_(uniform(value, -0.2, 0.4))
    return module.eval()
