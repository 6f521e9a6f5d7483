"""The order in which each member of a stack sees its rows, epoch by epoch.

An order is a function of (seed, member, epoch) alone. Drawing the orders of 64 members takes the CPU tens of
milliseconds, during which a GPU would wait: there they are drawn for the next epoch while one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ensemble.seeding import Purpose, member_generator, member_seed
from ensemble.types import DoubleArray, MemberSpec


class Orders:
    """Positions in the members' rows, int64 [K, R] on their device: all rows once, or drawn.

    chances: of each row of a member to be drawn, [R]; None for a member that takes all rows once. last_epoch: orders are
    drawn ahead up to this epoch (from 0); None: never.
    """

    def __init__(
        self,
        members: Sequence[MemberSpec],
        chances: Sequence[DoubleArray | None],
        seed: int,
        rows: int,
        device: torch.device,
        last_epoch: int | None,
    ) -> None:
        self._members, self._chances, self._seed, self._rows, self._device = members, chances, seed, rows, device
        self._last_epoch = last_epoch
        self._thread = ThreadPoolExecutor(1, "orders") if last_epoch is not None else None
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def of(self, epoch: int) -> Tensor:
        """The orders of an epoch (from 0)."""
        return self.on_host(epoch).to(self._device, non_blocking=True).long()

    def on_host(self, epoch: int) -> Tensor:
        """The same in the machine's memory; int32 where they are drawn ahead."""
        if self._thread is None or self._last_epoch is None:
            return self._draw(epoch)
        drawn = self._ahead[1].result() if self._ahead and self._ahead[0] == epoch else self._draw(epoch)
        if epoch < self._last_epoch:
            self._ahead = epoch + 1, self._thread.submit(self._draw, epoch + 1)
        else:
            self._thread.shutdown(wait=False)
        return drawn

    def _draw(self, epoch: int) -> Tensor:
        if self._thread is None:
            return torch.stack([self._order(k, epoch) for k in range(len(self._members))])
        drawn = torch.empty((len(self._members), self._rows), dtype=torch.int32, pin_memory=self._device.type == "cuda")
        for k, order in enumerate(drawn):
            order.copy_(self._order(k, epoch))
        return drawn

    def _order(self, position: int, epoch: int) -> Tensor:
        member, chances = self._members[position].index, self._chances[position]
        if chances is None:
            generator = torch.Generator().manual_seed(member_seed(self._seed, member, Purpose.ORDER, epoch))
            return torch.randperm(self._rows, generator=generator)
        drawn = member_generator(self._seed, member, Purpose.SAMPLE, epoch)
        return torch.from_numpy(drawn.choice(len(chances), len(chances), p=chances / chances.sum()))
