"""Decides what a campaign does next: pure policies, and the Thinker that carries them out."""
