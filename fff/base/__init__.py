"""What every layer may use: units, errors, ids, random draws, atomic files."""
