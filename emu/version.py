"""The version of pagewalk: read by the packaging, ``pagewalk --version`` and the header of every trace."""

__version__ = "0.1.0"
