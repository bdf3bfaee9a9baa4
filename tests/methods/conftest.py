"""What tests of counting share."""

from __future__ import annotations

import pytest
from torch import nn

from mosld_bench.methods import count


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that methods are counted on, one a setting that is counted."""
    copied, models = count._copied, list[nn.Module]()

    def watched(model: nn.Module, counts: count.CountByModule | None) -> nn.Module:
        models.append(copied(model, counts))
        return models[-1]

    monkeypatch.setattr(count, "_copied", watched)
    return models
