"""mezzo: an open, self-hosted implementation of the Mistral Medium system.

Importing this package is cheap on purpose: no torch, no web framework, no database.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
