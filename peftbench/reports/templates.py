"""HTML by Jinja2: templates lie beside the module that fills them.

Every value is escaped; only `trusted` text, which comes from this package, is put in as it is.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """Fill a template, such as `html/page.html`.

    Raises:
        jinja2.UndefinedError: if a value that the template uses is missing.
        ValueError: if data for scripts hold a number that JSON does not have.
    """
    return _environment().get_template(template).render(values)


def trusted(text: str) -> "Markup":
    """Text that a template does not escape."""
    from markupsafe import Markup

    return Markup(text)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # for the filter `tojson`, which also writes <, >, & and ' as \u003c etc.
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return made
