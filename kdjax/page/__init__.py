"""A page to look at: `report.html`, one self-contained file of what was run."""

from kdjax.page.document import write

__all__ = ['write']
