"""Sources → store: plan, extract in parallel, statistics; called again after a kill, it goes on."""

from landscale.prepare.preparation import Outcome, prepare

__all__ = ["Outcome", "prepare"]
