"""What makes labels: xTB, PySCF, any ASE calculator; in this process or in one that can be killed.

Nothing heavy is imported before the first calculation.
"""

from fff.reference.making import make_reference
from fff.reference.process import ReferenceProcess
from fff.reference.protocol import ReferenceCalculator, ReferenceMethod

__all__ = ["ReferenceCalculator", "ReferenceMethod", "ReferenceProcess", "make_reference"]
