"""Records and stores: structures, frames, labels, provenance, the run directory."""
