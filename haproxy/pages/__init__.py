"""The pages that visitors see: texts and a colour (pages.toml) in one skeleton (page.html).

HAProxy reads what is made of them, errors/, and nothing here.
"""

from haproxy.pages.render import render
from haproxy.pages.texts import SHIPPED, PagesError, Texts, read

__all__ = ["SHIPPED", "PagesError", "Texts", "read", "render"]
