"""How methods spend a budget, and which ones they can use; imports torch."""

import inspect
from dataclasses import dataclass
from functools import cached_property

from magbench.errors import ConfigError
from magbench.runners.methods import BudgetError, parse_method
from magbench.runners.policies.base import CachePolicy

LONGEST = 128
"""Past frames up to which the smallest budget is searched."""


@dataclass(frozen=True)
class Spending:
    """What a method makes of `--budget N`."""

    spec: str
    """As after `--method`."""

    @cached_property
    def policy(self) -> CachePolicy:
        """The policy with the budget it has of its own."""
        return parse_method(self.spec).policy

    @cached_property
    def smallest(self) -> int | None:
        """The fewest past frames it can use; None where it can't be given a budget, or keeps what it has."""
        for frames in range(1, LONGEST + 1) if self.policy.matched and self.policy.budget else ():
            try:
                parse_method(self.spec, frames)
            except BudgetError:
                continue
            except ConfigError:  # its size is in its name
                break
            return frames
        return None

    @property
    def own(self) -> str:
        """The budget it has when none is given, in words."""
        return "grows with the video" if self.policy.budget is None else f"{self.policy.budget} past frames"

    @property
    def how(self) -> str:
        """What it spends N on: the first sentence of its `spend`."""
        policy = type(self.policy)
        if all("spend" not in vars(cls) for cls in policy.__mro__ if cls is not CachePolicy):
            return "All of it is window, sink and memories included, behind which the chunk itself stands."
        return (inspect.getdoc(policy.spend) or "").partition("\n")[0]

    def __str__(self) -> str:
        """Own budget, those it can use, and how it spends them, on one line."""
        if not self.policy.matched:
            return f"{self.own}, whatever --budget says. {self.how}"
        if self.smallest is None:
            return self.own
        return f"{self.own}; --budget N: {self.smallest} or more. {self.how}"
