"""Settings classes as command-line options, so that every option is said once, with its field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from imagen_fast.tasks.settings import RunSettings

S = TypeVar("S", bound=RunSettings)


def takes(kind: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """A decorator: the function of one settings object becomes a command with an option for each field.

    With `--resume` the settings are those of the run in --out, under those given on the command line.
    """

    def decorate(command: Callable[[S], None]) -> Callable[..., None]:
        def run(ctx: typer.Context, **values: Any) -> None:
            given = {
                name: value
                for name, value in values.items()
                # By name: typer may bring a click of its own.
                if getattr(ctx.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"
            }
            command(_settings(kind, given))

        hints = get_type_hints(kind)
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for f in fields(kind):
            name = f.metadata["name"] or f"--{f.name.replace('_', '-')}"
            # The help tells defaults that follow from the data in words; typer tells the plain ones.
            show = f.default is not None and f.default is not False
            text = f.metadata["help"].replace("[", "\\[")  # rich takes brackets for markup
            choice: Any = typer.Option(name, help=text, show_default=show)
            hint: Any = hints[f.name]
            annotated = Annotated[hint, choice]
            parameters.append(
                inspect.Parameter(
                    f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=annotated
                )
            )
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _settings(kind: type[S], given: dict[str, Any]) -> S:
    if not given.get("resume") or given.get("out") is None:
        # Without --out the folder follows from the data; the run there is compared with these settings.
        return kind(**given)
    from imagen_fast.tasks.session import settings_of_run

    return settings_of_run(kind, given["out"], given)
