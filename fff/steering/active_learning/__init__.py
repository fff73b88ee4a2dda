"""The active-learning campaign: four roles over one state."""

from fff.steering.active_learning.policy import ActiveLearning

__all__ = ["ActiveLearning"]
