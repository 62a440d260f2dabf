"""Sources → store: plan, extract in parallel, statistics; called again after a kill, it goes on."""

from landscale.preparation.preparation import Outcome, prepare

__all__ = ["Outcome", "prepare"]
