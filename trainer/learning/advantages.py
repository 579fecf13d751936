"""The arithmetic of PPO, on tensors of (answers, tokens) with a mask of what was said."""

from typing import Any


def generalized_advantages(
    rewards: Any, values: Any, mask: Any, *, discount: float, decay: float
) -> tuple[Any, Any]:
    """(advantages, returns), arXiv:1506.02438: a sum of temporal-difference errors that fades with
    ``discount * decay`` a token. Answers are one piece from the left; behind their end nothing is worth
    anything."""
    import torch

    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for place in reversed(range(rewards.size(1))):
        last = place + 1 == rewards.size(1)
        ahead = torch.zeros_like(following) if last else values[:, place + 1] * mask[:, place + 1]
        error = rewards[:, place] + discount * ahead - values[:, place]
        following = (error + discount * decay * following) * mask[:, place]
        advantages[:, place] = following
    return advantages, (advantages + values) * mask


def whitened(values: Any, mask: Any) -> Any:
    """Mean 0 and standard deviation 1 over what the mask shows, 0 elsewhere."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    variance = ((values - mean) ** 2 * mask).sum() / count
    return (values - mean) / (variance + 1e-8).sqrt() * mask


def policy_loss(log_probs: Any, old: Any, advantages: Any, mask: Any, *, clip: float) -> tuple[Any, Any]:
    """(loss, share of clipped tokens): the pessimistic one of the plain and the clipped ratio
    (arXiv:1707.06347, equation 7)."""
    import torch

    ratio = torch.exp(log_probs - old)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.max(plain, clipped), mask), masked_mean((clipped > plain).float(), mask)


def value_loss(values: Any, old: Any, returns: Any, mask: Any, *, clip: float) -> Any:
    """Half the squared error; a value that runs further than ``clip`` from where it was gains nothing
    (arXiv:2009.01325's code)."""
    import torch

    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.max((values - returns) ** 2, (near - returns) ** 2), mask)


def masked_mean(values: Any, mask: Any) -> Any:
    return (values * mask).sum() / mask.sum().clamp(min=1)
