"""Which entries are eligible."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument
from .integers import vector
from .requests import FilterColumns
from .scalars import whole_or_none


@dataclass(frozen=True, eq=False)
class Filters:
    """Filters of one draw, in place of the call's: all that are given must pass.

    Each means what the parameter of that name of `Bank.sample` does, and has its default.
    """

    exclude_self: bool | None = None
    exclude_same_group: bool | None = None
    exclude_same_label: bool = False
    exclude_ids: npt.ArrayLike | Set[int] | None = None
    only_labels: npt.ArrayLike | Set[int] | None = None
    exclude_labels: npt.ArrayLike | Set[int] | None = None
    exclude_unlabelled: bool = False
    min_step: SupportsIndex | None = None
    max_age: SupportsIndex | None = None
    only_same_label: bool = False
    only_same_group: bool = False

    def columns(self) -> FilterColumns:
        """The filters, checked, as they are sent."""
        return FilterColumns(
            exclude_self=self.exclude_self,
            exclude_same_group=self.exclude_same_group,
            exclude_same_label=self.exclude_same_label,
            exclude_ids=None if self.exclude_ids is None else vector(_listed(self.exclude_ids), np.uint64, "exclude_ids"),
            only_labels=None if self.only_labels is None else _some(vector(_listed(self.only_labels), np.int64, "only_labels")),
            exclude_labels=(
                None if self.exclude_labels is None else vector(_listed(self.exclude_labels), np.int64, "exclude_labels")
            ),
            exclude_unlabelled=self.exclude_unlabelled,
            min_step=whole_or_none(self.min_step, "min_step", 64),
            max_age=whole_or_none(self.max_age, "max_age", 64),
            only_same_label=self.only_same_label,
            only_same_group=self.only_same_group,
        )


def _listed(values: Any) -> Any:
    """Sets as lists; numpy would make one object of a set."""
    return list(values) if isinstance(values, Set) else values


def _some(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """On the wire an empty list is no filter: it would serve every label where none was allowed."""
    if not labels.size:
        raise InvalidArgument.of("only_labels", "is empty, so nothing could be served: give labels, or leave it out")
    return labels
