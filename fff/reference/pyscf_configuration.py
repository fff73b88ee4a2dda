"""What PySCF executes when it is imported here: its configuration, in place of the user's; see `dft`."""

# Numbers in a basis set are read as numbers, not evaluated as Python.
DISABLE_EVAL = True
