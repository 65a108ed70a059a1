"""Optimisers: Muon for the matrices inside the stacks, AdamW for everything else."""

import torch
import torch.distributed as dist


def orthogonalise(g, steps=5):
    """The orthogonal matrices nearest to those of g [..., m, n], roughly: Newton-Schulz on g g^T."""
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * (s @ s)) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised (Jordan et al. 2024). For matrices only.

    Each rank orthogonalises its share of the matrices; one all-reduce hands the rest around.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            shapes = {}  # matrices of one shape are orthogonalised together
            for i, p in enumerate(params):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].mul_(group["momentum"]).add_(p.grad)
                if i % world == rank:
                    shapes.setdefault(p.shape, []).append(i)
            steps = [None if world == 1 else torch.zeros_like(p) for p in params]
            for members in shapes.values():
                ahead = [params[i].grad.add(self.state[params[i]]["momentum"], alpha=group["momentum"]) for i in members]
                for i, step in zip(members, orthogonalise(torch.stack(ahead))):
                    steps[i] = step
            if world > 1:
                flat = torch.cat([s.flatten() for s in steps])
                dist.all_reduce(flat)
                steps = [s.view_as(p) for s, p in zip(flat.split([p.numel() for p in params]), params)]
            for p, step in zip(params, steps):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(step, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def optimisers(model, lr, muon_lr, weight_decay, device):
    """Muon (unless muon_lr is 0) for the stacks' matrices, AdamW for embeddings, head, norms, biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    fused = {"fused": True} if device == "cuda" else {}
    if muon_lr:
        out = [Muon(matrices, muon_lr, weight_decay=weight_decay)]
        groups = [{"params": rest, "weight_decay": 0.0}]
    else:
        out = []
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    out.append(torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, **fused))
    for optimiser in out:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return out
